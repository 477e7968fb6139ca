package replicate_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/locate/locatetest"
	"github.com/buildmesh/buildmesh/dht/locate/wire"
	"github.com/buildmesh/buildmesh/dht/replicate"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// member answers Keep and knows receipts.
type member struct {
	contentv1.UnimplementedContentServer
	*wire.Node
	mu     sync.Mutex // guards all below
	asked  int
	has    map[cid.Key]bool
	refuse bool
}

func (m *member) Keep(_ context.Context, q *contentv1.KeepRequest) (*contentv1.KeepResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked++
	r := &contentv1.KeepResponse{}
	for _, k := range q.Keys {
		if !m.refuse {
			m.has[cid.Key(k)] = true
		}
		r.Kept = append(r.Kept, m.has[cid.Key(k)])
	}
	return r, nil
}

// keeps is how many results the member has, and how often it was asked.
func (m *member) keeps() (results, asked int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.has), m.asked
}

// claims is a locator that says that some members have everything.
type claims []peer.ID

func (c claims) Announce(context.Context, []cid.Key) error { return nil }
func (c claims) Forget(context.Context, []cid.Key) error   { return nil }
func (c claims) Find(_ context.Context, keys []cid.Key) ([][]peer.ID, error) {
	return slices.Repeat([][]peer.ID{c}, len(keys)), nil
}

// pins counts what is pinned; each result has 10 bytes.
type pins struct {
	mu   sync.Mutex // guards held
	held int
	gone bool
}

func (p *pins) Pin(context.Context, cid.Key) (func(), int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil, 0, errors.New("gone")
	}
	p.held++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held--
	}, 10, nil
}

func (p *pins) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// lab is node 0 with a Copier and three members: 1 on battery, 2 on mains power, 3 metered.
type lab struct {
	members []*member
	pins    *pins
	options replicate.Options
}

func newLab(t *testing.T) *lab {
	t.Helper()
	ids := locatetest.IDs(4)
	net := wire.New(ids)
	l := &lab{pins: &pins{}}
	for _, id := range ids {
		m := &member{Node: net.Node(id), has: map[cid.Key]bool{}}
		contentv1.RegisterContentServer(m.Server, m)
		l.members = append(l.members, m)
	}
	net.Start()
	t.Cleanup(net.Close)
	l.options = replicate.Options{Others: 1, Dialer: l.members[0], Locator: claims{}, Pinner: l.pins, PinBytes: 1000, After: time.Millisecond,
		Members: func() []replicate.Member {
			return []replicate.Member{{ID: ids[1], Battery: true}, {ID: ids[2]}, {ID: ids[3], Metered: true}}
		}}
	return l
}

// run runs a Copier until the test ends.
func (l *lab) run(t *testing.T) *replicate.Copier {
	t.Helper()
	c := replicate.New(l.options)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		if n := l.pins.count(); n != 0 {
			t.Errorf("%d results are pinned after the end", n)
		}
	})
	return c
}

func keys(n int) []cid.Key {
	all := make([]cid.Key, n)
	for i := range all {
		all[i] = cid.NewKeyer(nil).Blob(digest.SHA256.Of([]byte{byte(i), byte(i >> 8)}))
	}
	return all
}

// until waits for a state of the Copier, at most 20 s.
func until(t *testing.T, c *replicate.Copier, f func(replicate.Stat) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(c.Stat()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it stays at %+v", c.Stat())
		}
	}
}

// held checks how many results each of the members 1 to 3 has.
func (l *lab) held(t *testing.T, want ...int) {
	t.Helper()
	for i, n := range want {
		if got, _ := l.members[i+1].keeps(); got != n {
			t.Errorf("member %d has %d results, want %d", i+1, got, n)
		}
	}
}

// TestMainsFirst: the member on mains power takes everything, in few calls; then nothing is pinned any more.
func TestMainsFirst(t *testing.T) {
	l := newLab(t)
	c := l.run(t)
	c.Note(keys(500)...)
	until(t, c, func(s replicate.Stat) bool { return s.Held == 500 && s.Open == 0 })
	l.held(t, 0, 500, 0)
	if _, asked := l.members[2].keeps(); asked > 8 {
		t.Errorf("%d calls for 500 results", asked)
	}
	if s := c.Stat(); s.Pinned != 0 || l.pins.count() != 0 {
		t.Errorf("still pinned: %+v", s)
	}
}

// TestRefused: when the one on mains power refuses, the one on battery is asked; a metered one never is.
func TestRefused(t *testing.T) {
	l := newLab(t)
	l.members[2].refuse = true
	c := l.run(t)
	c.Note(keys(10)...)
	until(t, c, func(s replicate.Stat) bool { return s.Held == 10 })
	l.held(t, 10, 0, 0)

	l.members[1].mu.Lock()
	l.members[1].refuse = true
	l.members[1].mu.Unlock()
	more := keys(20)[10:]
	c.Note(more...)
	until(t, c, func(s replicate.Stat) bool { return s.Refused >= 3 })
	if s := c.Stat(); s.Open != 10 || s.Pinned != 100 || s.Held != 10 {
		t.Errorf("what nobody takes: %+v", s)
	}
	if _, asked := l.members[3].keeps(); asked != 0 {
		t.Error("a metered member was asked")
	}
}

// TestAskedAgain: what nobody takes is asked for again after 2, 4, 8 and 16 s, and then every 30 s.
func TestAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.members[1].refuse, l.members[2].refuse = true, true
		c := l.run(t)
		c.Note(keys(1)...)
		passed := time.Duration(0)
		for i, at := range []time.Duration{0, 2, 6, 14, 30, 60, 90, 120} {
			time.Sleep(at*time.Second + time.Second - passed)
			passed = at*time.Second + time.Second
			if _, asked := l.members[2].keeps(); asked != i+1 {
				t.Errorf("asked %d times after %v, want %d", asked, passed, i+1)
			}
		}
		l.members[2].mu.Lock()
		l.members[2].refuse = false
		l.members[2].mu.Unlock()
		time.Sleep(replicate.RetryMax)
		l.held(t, 0, 1, 0)
		if s := c.Stat(); s.Open != 0 || s.Pinned != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestSilent: a member that does not answer delays copies by one call; after that it is asked last, until it answers.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		c := l.run(t)
		l.members[2].Freeze()
		c.Note(keys(1)...)
		time.Sleep(replicate.KeepFor + time.Second)
		l.held(t, 1, 0, 0)
		c.Note(keys(2)[1])
		time.Sleep(time.Second)
		l.held(t, 2, 0, 0)

		l.members[2].Thaw()
		l.members[1].mu.Lock()
		l.members[1].refuse = true
		l.members[1].mu.Unlock()
		c.Note(keys(3)[2])
		time.Sleep(time.Second)
		l.members[1].mu.Lock()
		l.members[1].refuse = false
		l.members[1].mu.Unlock()
		c.Note(keys(4)[3])
		time.Sleep(time.Second)
		l.held(t, 2, 2, 0)
		if s := c.Stat(); s.Held != 4 || s.Pinned != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestClaimedFirst: who is said to have it is asked before those on mains power, and nothing is copied twice.
func TestClaimedFirst(t *testing.T) {
	l := newLab(t)
	l.options.Locator = claims{l.members[1].ID}
	c := l.run(t)
	c.Note(keys(10)...)
	until(t, c, func(s replicate.Stat) bool { return s.Held == 10 })
	l.held(t, 10, 0, 0)
}

// TestTwoOthers: three holders in all.
func TestTwoOthers(t *testing.T) {
	l := newLab(t)
	l.options.Others = 2
	c := l.run(t)
	c.Note(keys(10)...)
	until(t, c, func(s replicate.Stat) bool { return s.Held == 10 })
	l.held(t, 10, 10, 0)
}

// TestPinsAreBounded: beyond PinBytes results are copied unpinned, and what is not whole any more is dropped.
func TestPinsAreBounded(t *testing.T) {
	l := newLab(t)
	l.options.After, l.options.PinBytes = time.Hour, 55
	c := l.run(t)
	c.Note(keys(10)...)
	until(t, c, func(s replicate.Stat) bool { return s.Open == 10 && s.Pinned == 50 })
	if n := l.pins.count(); n != 5 {
		t.Errorf("%d results are pinned, want 5", n)
	}
	l.pins.mu.Lock()
	l.pins.gone = true
	l.pins.mu.Unlock()
	c.Note(keys(12)...)
	until(t, c, func(s replicate.Stat) bool { return s.Open == 10 })
}

// TestMetered: over a network that is paid by the byte nothing is copied, until it is another one.
func TestMetered(t *testing.T) {
	l := newLab(t)
	looked := make(chan struct{}, 100)
	var mu sync.Mutex
	metered := true
	l.options.Metered = func() bool {
		looked <- struct{}{}
		mu.Lock()
		defer mu.Unlock()
		return metered
	}
	c := l.run(t)
	c.Note(keys(1)...)
	<-looked
	l.held(t, 0, 0, 0)
	mu.Lock()
	metered = false
	mu.Unlock()
	c.Note(keys(1)...) // as the next build would
	until(t, c, func(s replicate.Stat) bool { return s.Held == 1 })
}

// adopter has what it was given.
type adopter struct {
	has   map[cid.Key]bool
	fails bool
}

func (a *adopter) Answers(_ context.Context, keys []cid.Key) ([]share.Answer, error) {
	all := make([]share.Answer, len(keys))
	for i, k := range keys {
		all[i].Complete = a.has[k]
	}
	return all, nil
}

func (a *adopter) Adopt(_ context.Context, raw []byte, key cid.Key, _ peer.ID) error {
	if a.fails || string(raw) != "good" {
		return errors.New("not believed")
	}
	a.has[key] = true
	return nil
}

// offers is a member that gives a bad receipt and a good one for each key.
type offers struct {
	contentv1.UnimplementedContentServer
	answers int // fewer than were asked for, when not 0
}

func (o offers) Results(_ context.Context, q *contentv1.ResultsRequest) (*contentv1.ResultsResponse, error) {
	r := &contentv1.ResultsResponse{}
	for range len(q.Keys) - o.answers {
		r.Answers = append(r.Answers, &contentv1.Answer{Receipts: [][]byte{[]byte("bad"), []byte("good")}})
	}
	return r, nil
}

// dialed is a Dialer with one connection.
type dialed struct{ grpc.ClientConnInterface }

func (d dialed) Control(context.Context, peer.ID) (grpc.ClientConnInterface, error) {
	return d.ClientConnInterface, nil
}

func (d dialed) Bulk(context.Context, peer.ID) (grpc.ClientConnInterface, error) {
	return d.ClientConnInterface, nil
}

// TestKeeper: what is here is said at once, also when nothing is taken; the rest is adopted; whoever answers
// with something else gets nothing kept.
func TestKeeper(t *testing.T) {
	for name, c := range map[string]struct {
		lack    int // answers the one that asks leaves out
		refuse  error
		busy    bool
		want    int // of four, of which two are here
		refused bool
	}{
		"good": {want: 4}, "refusing": {refuse: errors.New("full"), want: 2, refused: true},
		"busy": {busy: true, want: 2, refused: true}, "asked by a liar": {lack: 1, want: 2, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			ids := locatetest.IDs(2)
			net := wire.New(ids)
			contentv1.RegisterContentServer(net.Node(ids[0]).Server, offers{answers: c.lack})
			net.Start()
			defer net.Close()
			conn, err := net.Node(ids[1]).Control(t.Context(), ids[0])
			if err != nil {
				t.Fatal(err)
			}
			all := keys(4)
			a := &adopter{has: map[cid.Key]bool{all[0]: true, all[2]: true}}
			k := &replicate.Keeper{Adopter: a, Dialer: dialed{conn}, Refuse: func() error { return c.refuse }, Slots: make(chan struct{}, 1)}
			if c.busy {
				k.Slots <- struct{}{}
			}
			kept, refused, err := k.Keep(t.Context(), ids[0], all)
			if err != nil || (refused != nil) != c.refused {
				t.Fatal(refused, err)
			}
			n := 0
			for _, is := range kept {
				if is {
					n++
				}
			}
			if n != c.want || len(a.has) != c.want {
				t.Errorf("%v kept, want %d", kept, c.want)
			}
		})
	}
}
