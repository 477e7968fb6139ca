package scenarios

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

var (
	update   = flag.Bool("update", false, "rewrite the transcripts")
	patience = flag.Float64("patience", 1, "factor by which every wait may last longer")
	seed     = flag.Int64("seed", 1, "of the loss on slow wires")
)

// storyLimit is how long a scenario may last in all.
const storyLimit = 5 * time.Minute

// scratch is where programs are built; TestMain makes and removes it.
var scratch string

// programs builds what scenarios run, once.
var programs = sync.OnceValues(func() (programs struct{ node, stranger, rogue string }, err error) {
	programs.stranger, programs.rogue = filepath.Join(scratch, "stranger"), filepath.Join(scratch, "rogue")
	if programs.node, err = lab.Build(context.Background(), scratch); err != nil {
		return programs, err
	}
	cmd := exec.Command("go", "build", "-o", scratch, "github.com/buildmesh/buildmesh/testnet/stranger", "github.com/buildmesh/buildmesh/testnet/rogue")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return programs, cmd.Run()
})

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if scratch, err = os.MkdirTemp("", "scenarios-"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch)
	os.Exit(status)
}

// Every scenario holds and prints what its file says.
func TestScenarios(t *testing.T) {
	if err := lab.Lacking(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if _, err := programs(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".txt"), func(t *testing.T) {
			t.Parallel()
			play(t, file)
		})
	}
}

// play plays one file in a lab of its own.
func play(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	script, err := scenario.Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.New(lab.Options{Binary: built.node, Seed: *seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), storyLimit)
	defer cancel()
	t.Logf("%s (seed %d)", script.Claim, *seed)
	world := New(l)
	t.Cleanup(world.Close)
	world.Stranger, world.Rogue, world.Patience, world.Log = built.stranger, built.rogue, *patience, t.Logf
	printed, err := scenario.Play(ctx, script, world)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		for _, n := range l.Nodes() {
			t.Logf("%s said:\n%s", n.Name, n.Log())
		}
		return
	}
	if *update {
		if err := os.WriteFile(file, []byte(script.Render(printed)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if wrong := scenario.Compare(script, printed); wrong != "" {
		t.Errorf("%s prints something else (go test ./testnet/scenarios -update rewrites the file):\n%s", file, wrong)
	}
}
