package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// policy is a way to place actions.
type policy struct {
	name  string
	place func(w *world) // nil: clairvoyant, which plays nothing
}

var policies = []policy{
	{"clairvoyant", nil},
	{"mesh", meshed},
	{"central FIFO", centralFIFO},
	{"late binding", lateBinding},
	{"two choices", twoChoices},
	{"least loaded", leastLoaded},
	{"random", randomPush},
}

// play gives the outcome of a scene under a policy.
func (p policy) play(s scene) outcome {
	if p.place == nil {
		return clairvoyant(s)
	}
	w := newWorld(s)
	p.place(w)
	return w.play()
}

// sceneOf is the scene of a mesh of some nodes: a thirtieth of them build, 32 at most, and every slot gets 10 to
// 60 actions.
func sceneOf(nodes int, disturbed bool, seed uint64) scene {
	return scene{nodes: nodes, initiators: min(max(nodes/30, 1), 32), perSlot: min(max(60_000/nodes, 10), 60), disturbed: disturbed, seed: seed}
}

func main() {
	out := flag.String("out", "out/sim", "directory of sim.md and sim.svg")
	small := flag.Bool("small", false, "up to 300 nodes only")
	nodes := flag.Int("nodes", 0, "of the only mesh to play; 0: meshes of all sizes")
	actions := flag.Int("actions", 0, "for every slot; 0: 10 to 60, by the size of the mesh")
	seed := flag.Uint64("seed", 1, "of everything that is random")
	rates := flag.Bool("rates", false, "measure decisions a second instead")
	log := flag.String("record", "", "execution log of Bazel to make testnet/sim/testdata/cpp.trace.gz of instead")
	flag.Parse()
	var err error
	switch {
	case *log != "":
		err = record(*log, "testnet/sim/testdata/cpp.trace.gz")
	case *rates:
		writeRates(os.Stdout)
	default:
		sizes := []int{3, 10, 30, 100, 300, 1000, 3000, 10000}
		if *small {
			sizes = sizes[:5]
		}
		if *nodes > 0 {
			sizes = []int{*nodes}
		}
		err = compare(scenes(sizes, *actions, *seed), *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

// row is what every policy made of one scene.
type row struct {
	scene
	outcomes []outcome // of policies
}

// scenes are those of meshes of some sizes, calm and then disturbed; perSlot 0 leaves the actions for every slot to sceneOf.
func scenes(sizes []int, perSlot int, seed uint64) (all []scene) {
	for _, disturbed := range []bool{false, true} {
		for _, nodes := range sizes {
			s := sceneOf(nodes, disturbed, seed)
			s.perSlot = cmp.Or(perSlot, s.perSlot)
			all = append(all, s)
		}
	}
	return all
}

// compare plays every scene under every policy, and writes the table and the picture into dir.
func compare(scenes []scene, dir string) error {
	var rows []row
	for _, s := range scenes {
		r := row{scene: s}
		for _, p := range policies {
			r.outcomes = append(r.outcomes, p.play(s))
		}
		rows = append(rows, r)
		fmt.Printf("%s, seed %d: makespan %.1f s, %.3f of clairvoyant\n", s, s.seed, r.outcomes[1].makespan, r.outcomes[1].makespan/r.outcomes[0].makespan)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err := write(filepath.Join(dir, "sim.md"), func(w io.Writer) error { return writeTable(w, rows) })
	err = errors.Join(err, write(filepath.Join(dir, "sim.svg"), func(w io.Writer) error { return writePicture(w, rows) }))
	fmt.Println("written:", filepath.Join(dir, "sim.md"), filepath.Join(dir, "sim.svg"))
	return err
}

func write(path string, render func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(render(f), f.Close())
}
