package power

import (
	"context"
	"sync"
	"time"
)

// Reader fills in some of the Facts. What it cannot find out it leaves alone; the error says why, for
// doctor.
type Reader interface {
	// Name is the fact in a person's words, such as "battery".
	Name() string
	Read(ctx context.Context, f *Facts) error
}

// Options make a Governor; zero values mean the defaults told at each field.
type Options struct {
	Dir     string // where a pause is kept; must exist
	Policy  Policy
	Readers []Reader
	Guests  func() int       // how many actions of others run here; nil: none
	Looked  func(Facts)      // told of every look's facts, before Changed; must not block; nil: nobody
	Changed func(Status)     // told of every change, one at a time; must not block; nil: nobody
	Period  time.Duration    // between two looks; default 2 s
	Clock   func() time.Time // default time.Now
}

// Governor watches the machine.
type Governor struct {
	options Options
	looking sync.Mutex // held during a look, so that Changed is told in order; taken before mu

	mu     sync.Mutex // guards all below
	core   *Core
	status Status
	facts  Facts
	faults map[string]error // what could not be read, by reader
}

// New makes a Governor, with the pause that was kept, and looks for the first time. Its owner calls Run.
func New(o Options) (*Governor, error) {
	if o.Period <= 0 {
		o.Period = 2 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Guests == nil {
		o.Guests = func() int { return 0 }
	}
	kept, err := loadPause(o.Dir)
	if err != nil {
		return nil, err
	}
	g := &Governor{options: o, core: NewCore(o.Clock(), o.Policy, kept)}
	g.look(context.Background())
	return g, nil
}

// Run looks at the machine until ctx ends.
func (g *Governor) Run(ctx context.Context) {
	ticker := time.NewTicker(g.options.Period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			g.look(ctx)
		}
	}
}

// look reads the facts and steps. A reader may take its time: the mutex is not held meanwhile.
func (g *Governor) look(ctx context.Context) {
	g.looking.Lock()
	defer g.looking.Unlock()
	var f Facts
	faults := map[string]error{}
	for _, r := range g.options.Readers {
		if err := r.Read(ctx, &f); err != nil {
			faults[r.Name()] = err
		}
	}
	guests := g.options.Guests()
	g.mu.Lock()
	before := g.status
	g.status = g.core.Step(g.options.Clock(), f, guests)
	g.facts, g.faults = f, faults
	after := g.status
	g.mu.Unlock()
	if g.options.Looked != nil {
		g.options.Looked(f)
	}
	if after != before && g.options.Changed != nil {
		g.options.Changed(after)
	}
}

// Status is the present state.
func (g *Governor) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// Facts are those of the last look, with what could not be read, by the reader's name.
func (g *Governor) Facts() (Facts, map[string]error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.facts, g.faults
}

// Pause lends nothing until a time, or until Resume if it is zero. now evicts guests at once; otherwise
// they may finish.
func (g *Governor) Pause(ctx context.Context, until time.Time, now bool) error {
	return g.set(ctx, Pause{From: g.options.Clock(), Until: until, Now: now})
}

// Resume ends a pause; without one it does nothing. What else speaks against lending still counts.
func (g *Governor) Resume(ctx context.Context) error { return g.set(ctx, Pause{}) }

func (g *Governor) set(ctx context.Context, p Pause) error {
	if err := savePause(g.options.Dir, p); err != nil {
		return err
	}
	g.mu.Lock()
	resumed := p.IsZero() && !g.core.pause.IsZero()
	g.core.pause = p
	if resumed { // the owner's word needs no calm
		g.core.status = Status{State: Open, Since: g.options.Clock()}
	}
	g.mu.Unlock()
	g.look(ctx)
	return nil
}
