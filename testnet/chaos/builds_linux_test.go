package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/clients"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

var (
	seeds   = flag.Int("seeds", 3, "how many plans each kind of build is disturbed by")
	first   = flag.Int64("seed", 1, "the first seed")
	only    = flag.String("kinds", "", "what is done to nodes, like kill,sleep; empty: everything")
	actions = flag.Int("work", 60, "how many actions TestWork asks for")
)

const (
	limit = 4 * time.Minute // of a build under a plan
	// work is what every action of TestWork does.
	work = `sleep 0.30463; seq "$1" 20000 | sha256sum`
)

// machine is what the nodes run on: the disks are so small that one can be filled. All share the processors of this one: what
// one node takes is no owner at work on another, or hardly an action would cross the mesh.
var machine = lab.Machine{Settings: []string{"BUILDMESH_EXEC_CORES=2", "BUILDMESH_LEND_CPU=0"}, Disk: 256 << 20}

// build has something built, anew in every run, and gives what came out, by name.
type build func(ctx context.Context, run string) (map[string]string, error)

// Work over a mesh whose nodes are killed, put to sleep, cut off, slowed, moved, paused, filled up and revoked succeeds, its
// outputs are those of undisturbed work, and nothing of its actions is left.
func TestWork(t *testing.T) {
	equipped(t)
	l := mesh(t, 5, machine)
	load, err := NewLoad(l.Node("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	names := make([]string, *actions)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	underPlans(t, l, 4*time.Second, func(ctx context.Context, run string) (map[string]string, error) {
		outcome, err := load.Run(ctx, run, work, names)
		if err == nil {
			t.Logf("ran: %s", outcome)
		}
		return outcome.Stdout, err
	})
}

// A real Bazel builds like that.
func TestBazel(t *testing.T) {
	equipped(t)
	bazel := clients.Find(t).Bazel7(t)
	l := bazel.Place.Mesh(t, 5, machine)
	base := bazel.On(l.Node("n1").Begin).NewOutputBase(t)
	underPlans(t, l, 10*time.Second, func(_ context.Context, run string) (map[string]string, error) {
		made := base.Run(t, "build", append(clients.RemoteAt(clients.LabEndpoint), "--jobs=24", "--remote_download_all",
			"--action_env=RUN="+run, "//lattice")...)
		if made.Exit != 0 {
			return nil, fmt.Errorf("exit %d\n%s", made.Exit, made.Tail())
		}
		if n := made.Processes["remote"]; n != 48 {
			return nil, fmt.Errorf("of 48 actions %v ran", made.Processes)
		}
		return outputs(filepath.Join(base.Dir(), "execroot", "smoke", "bazel-out", "k8-fastbuild", "bin", "lattice"), "*.txt")
	})
}

// BuildStream builds like that. Its actions bring their whole root.
func TestBuildStream(t *testing.T) {
	equipped(t)
	stream := clients.Find(t).BuildStream(t)
	one := machine
	one.Settings = []string{"BUILDMESH_EXEC_CORES=1", "BUILDMESH_LEND_CPU=0"} // it asks for four actions at a time
	l := stream.Place.Mesh(t, 5, one)
	client := stream.On(l.Node("n1").Begin).NewClient(t, clients.LabServer(), clients.Execution)
	underPlans(t, l, 8*time.Second, func(_ context.Context, run string) (map[string]string, error) {
		woven(t, stream, run)
		made := client.Run(t, "build", "last.bst")
		if made.Exit != 0 {
			return nil, fmt.Errorf("exit %d\n%s", made.Exit, made.Tail())
		}
		if n := made.Queues["Build"]; n < 13 {
			return nil, fmt.Errorf("%d elements were built\n%s", n, made.Tail())
		}
		dir := client.Checkout(t, "last.bst")
		defer func() { _ = os.RemoveAll(dir) }()
		return outputs(filepath.Join(dir, "out"), "*")
	})
}

// woven writes two rows of six elements, each of which depends on two of the row before, and a last one that has it all.
func woven(t *testing.T, stream *clients.BuildStream, run string) {
	t.Helper()
	element := func(name string, needs []string, command string) {
		text := "kind: manual\nbuild-depends:\n- base.bst\n"
		for _, need := range needs {
			text += "- " + need + "\n"
		}
		stream.Element(t, name, text+"config:\n  install-commands:\n  - |\n    # "+run+
			"\n    mkdir -p \"%{install-root}/out\" && sleep 0.30463\n    "+command+"\n")
	}
	var last []string
	for i := range 6 {
		element(fmt.Sprintf("first-%d.bst", i), nil, fmt.Sprintf(`seq %d 20000 >"%%{install-root}/out/%d"`, i, i))
		name := fmt.Sprintf("second-%d.bst", i)
		element(name, []string{fmt.Sprintf("first-%d.bst", i), fmt.Sprintf("first-%d.bst", (i+1)%6)},
			fmt.Sprintf(`sha256sum /out/* >"%%{install-root}/out/sum-%d"`, i))
		last = append(last, name)
	}
	element("last.bst", last, `cp /out/* "%{install-root}/out"`)
}

// outputs are the files that match, by name.
func outputs(dir, pattern string) (map[string]string, error) {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, path := range found {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all[filepath.Base(path)] = string(data)
	}
	return all, nil
}

// equipped skips a test on a machine where no lab can be made; in CI it fails it.
func equipped(t *testing.T) {
	t.Helper()
	err := lab.Lacking()
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
}

// underPlans has n1 build, first undisturbed and then under the plan of every seed, whose events begin within about as long
// as a build takes.
func underPlans(t *testing.T, l *lab.Lab, within time.Duration, b build) {
	t.Helper()
	kinds := Kinds()
	if *only != "" {
		kinds = nil
		for kind := range strings.SplitSeq(*only, ",") {
			kinds = append(kinds, Kind(kind))
		}
	}
	begun := time.Now()
	calm, err := b(t.Context(), "calm")
	if err != nil {
		t.Fatal(err)
	}
	if len(calm) == 0 {
		t.Fatal("nothing came out")
	}
	t.Logf("undisturbed: %.1f s, %d outputs", time.Since(begun).Seconds(), len(calm))
	known := asked(t, l.Node("n1"))
	for seed := *first; seed < *first+int64(*seeds); seed++ {
		plan := Make(seed, []string{"n2", "n3", "n4", "n5"}, within, kinds)
		t.Logf("seed %d:\n%s", seed, plan)
		underPlan(t, &Office{Lab: l, Member: "n1", Log: t.Logf}, plan, func(ctx context.Context) {
			begun := time.Now()
			got, err := b(ctx, fmt.Sprint("seed", seed))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			t.Logf("seed %d: %.1f s", seed, time.Since(begun).Seconds())
			if !maps.Equal(got, calm) {
				t.Errorf("seed %d: outputs differ", seed)
			}
		})
		took, err := lab.Eventually(t.Context(), time.Minute, l.Left)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		seen := known
		known = asked(t, l.Node("n1"))
		here := known.since(seen)
		t.Logf("seed %d: tidy after %.1f s; of %d actions %d crossed the mesh, %d in vain", seed, took.Seconds(), here.actions, here.crossed, here.vain)
	}
	if known.crossed == 0 {
		t.Error("nothing crossed the mesh, and so nothing was disturbed")
	}
}

// underPlan does something while a plan is carried out; when it is done, what is disturbed is healed.
func underPlan(t *testing.T, office *Office, plan Plan, do func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	disturbing, calmDown := context.WithCancel(ctx)
	carried := make(chan error, 1)
	go func() { carried <- office.Carry(disturbing, plan) }()
	defer func() {
		calmDown()
		if err := <-carried; err != nil {
			t.Errorf("the plan: %v", err)
		}
	}()
	do(ctx)
}
