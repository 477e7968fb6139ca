package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/exec/journal"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/exec/sandbox"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/asset"
	"github.com/buildmesh/buildmesh/node/bridge"
	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/control"
	"github.com/buildmesh/buildmesh/node/lock"
	"github.com/buildmesh/buildmesh/node/logstream"
	"github.com/buildmesh/buildmesh/node/reapi"
	"github.com/buildmesh/buildmesh/node/web"
)

// goodbye is how long calls for status and pages may go on after the endpoint has drained.
const goodbye = time.Second

// Node is everything one node is made of. Make it with New, then call Run or Close.
type Node struct {
	config  *config.Config
	log     *slog.Logger
	version string
	started time.Time

	identity *peer.Identity
	store    *cas.Store
	private  *share.Private
	results  *results
	logs     *logstream.Streams
	assets   *asset.Service
	bridge   *bridge.Origin
	journal  *journal.Journal
	history  *place.History // of before the start; the placer's from then on
	mesh     *meshed        // nil: this node stands alone
	lending  *lending
	content  *content        // nil: nothing is shared
	machine  *machine        // nil: this node runs no actions
	report   *sandbox.Report // of the probe; nil: none was made
	endpoint *reapi.Server
	control  *control.Server
	web      *http.Server // nil: no web
	webAt    net.Listener
	grpcAt   string // host:port listened on; empty for none
	metrics  *web.Metrics

	closers  []closer // in the order opened
	closed   sync.Once
	drained  sync.Once
	draining atomic.Bool
	ran      atomic.Bool   // Run was called: clients may have come
	hurry    chan struct{} // closed by Hurry
	hurried  sync.Once
}

// Main must be the first call of a program that runs nodes. It returns at once, unless the program was
// started to be the init of a sandbox; then it never returns.
func Main() { sandbox.Main() }

// closer ends one part of the node.
type closer struct {
	name  string
	close func() error
}

// New opens a node: afterwards all addresses are listened on, and Run or Close must be called. ctx
// bounds the opening only. version is what status shows.
func New(ctx context.Context, c *config.Config, log *slog.Logger, version string) (*Node, error) {
	n := &Node{config: c, log: log, version: version, started: time.Now(),
		metrics: web.NewMetrics(), hurry: make(chan struct{})}
	for _, part := range []struct {
		name string
		open func(context.Context) error
	}{
		{"state", n.openState}, {"mesh", n.openMesh}, {"store", n.openStore}, {"private", n.openPrivate}, {"results", n.openResults}, {"logs", n.openLogs}, {"journal", n.openJournal},
		{"assets", n.openAssets}, {"lending", n.openLending}, {"machine", n.openMachine}, {"presence", n.openPresence}, {"content", n.openContent}, {"peers", n.openPeers},
		{"endpoint", n.openEndpoint}, {"web", n.openWeb}, {"control", n.openControl},
	} {
		began := time.Now()
		if err := part.open(ctx); err != nil {
			return nil, errors.Join(err, n.Close())
		}
		log.Debug("opened", "part", part.name, "dur", time.Since(began))
	}
	n.metrics.Watch(n)
	return n, nil
}

// onClose notes how to end a part that was opened.
func (n *Node) onClose(name string, close func() error) {
	n.closers = append(n.closers, closer{name, close})
}

// Close ends the node at once, last opened first. Calls after the first do nothing.
func (n *Node) Close() error {
	var errs []error
	n.closed.Do(func() {
		n.Hurry()
		for i := len(n.closers) - 1; i >= 0; i-- {
			if err := n.closers[i].close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", n.closers[i].name, err))
			}
		}
	})
	return errors.Join(errs...)
}

// Hurry cuts a drain short, now or later.
func (n *Node) Hurry() { n.hurried.Do(func() { close(n.hurry) }) }

// Run serves until ctx ends or a listener fails, drains and closes. It returns nil after an orderly end.
func (n *Node) Run(ctx context.Context) error {
	n.ran.Store(true)
	failures := make(chan error, 4)
	var serving sync.WaitGroup
	serve := func(name string, f func() error) {
		serving.Go(func() {
			if err := f(); err != nil {
				failures <- fmt.Errorf("serve %s: %w", name, err)
			}
		})
	}
	serve("control", n.control.Serve)
	if n.mesh != nil {
		serve("mesh", n.mesh.serve)
	}
	if n.serves() {
		serve("endpoint", n.endpoint.Serve)
	}
	if n.web != nil {
		serve("web", n.serveWeb)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failures:
	}
	n.drain()
	err = errors.Join(err, n.Close())
	serving.Wait()
	return err
}

// serves reports whether the endpoint listens anywhere.
func (n *Node) serves() bool { return n.grpcAt != "" || n.config.Listen.Socket != "" }

// serveWeb serves until the server is shut down.
func (n *Node) serveWeb() error {
	if err := n.web.Serve(n.webAt); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain takes no more calls and lets those under way finish, for as long as configured or until Hurry.
func (n *Node) drain() {
	n.drained.Do(func() {
		n.draining.Store(true)
		if n.machine != nil && n.machine.bots != nil {
			n.machine.bots.Close() // their calls wait for work, of which there is no more
		}
		ctx, cancel := context.WithTimeout(context.Background(), n.config.Node.Drain)
		defer cancel()
		stop := make(chan struct{})
		var watching sync.WaitGroup
		watching.Go(func() {
			select {
			case <-n.hurry:
				cancel()
			case <-stop:
			}
		})
		if err := n.endpoint.Shutdown(ctx); err != nil && n.ran.Load() {
			n.log.Warn("calls were broken off", "err", err)
		}
		close(stop)
		watching.Wait()
	})
}

// openState makes the directories, takes the lock and reads the identity.
func (n *Node) openState(context.Context) error {
	dir := n.config.Dir
	for _, d := range []string{dir.State, dir.Cache, dir.Runtime} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	l, err := lock.Acquire(dir.State)
	var held *lock.HeldError
	if errors.As(err, &held) {
		return fmt.Errorf("%w; see it with: buildmesh status; a second node needs --dir, --listen and --web of its own", err)
	}
	if err != nil {
		return err
	}
	n.onClose("lock", l.Close)
	n.identity, err = peer.Load(dir.State)
	return err
}

// openStore opens the blob store.
func (n *Node) openStore(context.Context) error {
	s := n.config.Store
	store, err := cas.Open(filepath.Join(n.config.Dir.Cache, "store"), cas.Options{
		MaxBytes: int64(s.MaxSize), MinFree: int64(s.MinFree), MaxBlob: int64(s.MaxBlob), Lease: s.Lease,
	})
	if err != nil {
		return err
	}
	n.store = store
	n.onClose("store", store.Close)
	return nil
}
