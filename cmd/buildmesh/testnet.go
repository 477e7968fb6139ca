package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// testnetVerb is `buildmesh testnet`.
type testnetVerb struct {
	Up   testnetUpVerb   `cmd:"" help:"Run a mesh of several nodes on this machine until interrupted."`
	Demo testnetDemoVerb `cmd:"" help:"Show a mesh: nodes find each other, one is killed, seen dead, and comes back."`
}

// testnetSize is what both verbs of testnet take.
type testnetSize struct {
	Nodes int  `short:"n" default:"5" placeholder:"N" help:"How many nodes, 1 to 50."`
	Keep  bool `help:"Keep the directory with blobs, logs and configuration."`
}

// testnetUpVerb is `buildmesh testnet up`.
type testnetUpVerb struct {
	testnetSize
}

// Run makes a mesh and keeps it until a signal.
func (u *testnetUpVerb) Run(v *verbContext) error {
	return v.withTestnet(u.testnetSize, func(ctx context.Context, t *testnet) error {
		rows := []string{"NODE\tREMOTE EXECUTION\tSTATUS PAGE\tITS COMMAND LINE"}
		for _, n := range t.nodes {
			rows = append(rows, fmt.Sprintf("%s\tgrpc://%s\thttp://%s\tbuildmesh --config %s", n.name, n.grpc, n.web, n.file))
		}
		fmt.Fprintln(v.out)
		if err := v.table(rows); err != nil {
			return err
		}
		first := t.nodes[0]
		fmt.Fprintf(v.out, "\nlook:   buildmesh --config %s peers\nbuild:  bazel build --remote_executor=grpc://%s //...\nlog:    %s\nend:    Ctrl-C\n",
			first.file, first.grpc, first.log)
		return t.watch(ctx)
	})
}

// testnet is a mesh of processes of this program on loopback.
type testnet struct {
	v     *verbContext
	dir   string
	nodes []*testnetNode
}

// withTestnet makes a mesh, calls f and ends the mesh, also after a signal.
func (v *verbContext) withTestnet(size testnetSize, f func(context.Context, *testnet) error) error {
	if size.Nodes < 1 || size.Nodes > 50 {
		return usageError{fmt.Errorf("--nodes: %d is not between 1 and 50", size.Nodes)}
	}
	// The nodes die with the thread that starts them; see dieTogether.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, stop := signal.NotifyContext(v.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(v.settings.Dir, "mesh-")
	if err != nil {
		return err
	}
	t := &testnet{v: v, dir: dir}
	defer t.end(size.Keep)
	if err := t.begin(ctx, size.Nodes); err != nil {
		return t.unlessInterrupted(ctx, err)
	}
	return t.unlessInterrupted(ctx, f(ctx, t))
}

// unlessInterrupted turns the errors that come of Ctrl-C into none.
func (t *testnet) unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin starts the nodes and joins them.
func (t *testnet) begin(ctx context.Context, count int) error {
	begun := time.Now()
	fmt.Fprintf(t.v.out, "starting %d nodes in %s\n", count, t.dir)
	for i := range count {
		n, err := newTestnetNode(t.dir, fmt.Sprintf("n%d", i+1), max(1, runtime.NumCPU()/count), t.v.environ)
		if err == nil {
			t.nodes = append(t.nodes, n)
			err = n.start(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := t.join(ctx); err != nil {
		return err
	}
	if _, err := t.agree(ctx, t.nodes, "alive"); err != nil {
		return err
	}
	fmt.Fprintf(t.v.out, "a mesh of %d after %.1f s: all see each other\n", count, time.Since(begun).Seconds())
	return nil
}

// join has the first node invite the others.
func (t *testnet) join(ctx context.Context) error {
	if len(t.nodes) == 1 {
		return nil
	}
	said, err := t.nodes[0].verb(ctx, "invite", "--uses", fmt.Sprint(len(t.nodes)-1))
	if err != nil {
		return err
	}
	code, err := codeOf(said)
	if err != nil {
		return err
	}
	for _, n := range t.nodes[1:] {
		if _, err := n.verb(ctx, "join", code); err != nil {
			return err
		}
	}
	return nil
}

// codeOf finds the join code among what invite prints.
func codeOf(said string) (string, error) {
	for word := range strings.FieldsSeq(said) {
		if len(word) > 40 && strings.HasPrefix(word, "bm") {
			return word, nil
		}
	}
	return "", fmt.Errorf("invite printed no code: %s", said)
}

// testnetMeet is what members may take to come to see each other.
const testnetMeet = time.Minute

// agree waits until all nodes that run see every one of those in a state, and says how long that took.
func (t *testnet) agree(ctx context.Context, about []*testnetNode, state string) (time.Duration, error) {
	begun := time.Now()
	err := t.until(ctx, testnetMeet, func() error {
		for _, n := range t.nodes {
			if n.process == nil {
				continue
			}
			seen, err := n.sees(ctx)
			if err != nil {
				return fmt.Errorf("node %s: %w", n.name, err)
			}
			for _, other := range about {
				if got := seen[other.name]; other != n && got != state {
					return fmt.Errorf("%s sees %s %s", n.name, other.name, dash(got))
				}
			}
		}
		return nil
	})
	return time.Since(begun), err
}

// until asks again and again until check holds.
func (t *testnet) until(ctx context.Context, limit time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(testnetPoll)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", limit, err)
		}
	}
}

// watch waits for the end and tells of nodes that end before.
func (t *testnet) watch(ctx context.Context) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	ended := make(chan *testnetNode, len(t.nodes))
	for _, n := range t.nodes {
		wait.Go(func() {
			select {
			case <-n.ended:
				ended <- n
			case <-ctx.Done():
			}
		})
	}
	for left := len(t.nodes); left > 0; left-- {
		select {
		case <-ctx.Done():
			return nil
		case n := <-ended:
			fmt.Fprintf(t.v.out, "node %s has ended (%v); its log is %s; start it again with: buildmesh --config %s up\n", n.name, n.err, n.log, n.file)
		}
	}
	return errors.New("all nodes have ended")
}

// end ends every node and removes the directory.
func (t *testnet) end(keep bool) {
	var wait sync.WaitGroup
	for _, n := range t.nodes {
		wait.Go(n.stop)
	}
	wait.Wait()
	if keep {
		fmt.Fprintf(t.v.out, "kept: %s; run node n1 again with: buildmesh --config %s up\n", t.dir, filepath.Join(t.dir, "n1.toml"))
		return
	}
	if err := os.RemoveAll(t.dir); err != nil {
		fmt.Fprintf(t.v.errOut, "buildmesh: %v\n", err)
	}
}
