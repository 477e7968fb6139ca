package main

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var large = flag.Bool("large", false, "play 1,000 nodes as well")

// byName gives the policy of a name.
func byName(t testing.TB, name string) policy {
	for _, p := range policies {
		if p.name == name {
			return p
		}
	}
	t.Fatalf("no policy %q", name)
	return policy{}
}

// The mesh is close to a plan that knows every duration beforehand, when nothing goes wrong.
func TestAgainstClairvoyant(t *testing.T) {
	scenes := []scene{sceneOf(3, false, 1), sceneOf(10, false, 1), sceneOf(30, false, 1), sceneOf(30, false, 2)}
	if *large {
		scenes = append(scenes, sceneOf(30, false, 3), sceneOf(300, false, 1), sceneOf(1000, false, 1), sceneOf(1000, false, 2))
	}
	for _, s := range scenes {
		best, ours := clairvoyant(s), byName(t, "mesh").play(s)
		t.Logf("%s, seed %d: %.1f s, %.3f of clairvoyant; p99 %.1f s", s, s.seed, ours.makespan, ours.makespan/best.makespan, ours.p99)
		if ours.makespan > 1.2*best.makespan {
			t.Errorf("%s, seed %d: makespan %.2f s, clairvoyant %.2f s", s, s.seed, ours.makespan, best.makespan)
		}
	}
}

// When nodes die and slow down, the mesh is never behind late binding.
func TestDisturbedAgainstLateBinding(t *testing.T) {
	scenes := []scene{sceneOf(10, true, 1), sceneOf(30, true, 1), sceneOf(30, true, 2)}
	if *large {
		scenes = append(scenes, sceneOf(30, true, 3), sceneOf(300, true, 1), sceneOf(1000, true, 1))
	}
	for _, s := range scenes {
		late, ours := byName(t, "late binding").play(s), byName(t, "mesh").play(s)
		t.Logf("%s, seed %d: %.1f s, late binding %.1f s; p99 %.1f and %.1f s", s, s.seed, ours.makespan, late.makespan, ours.p99, late.p99)
		if ours.makespan > late.makespan {
			t.Errorf("%s, seed %d: makespan %.2f s, late binding %.2f s", s, s.seed, ours.makespan, late.makespan)
		}
	}
}

// Equal scenes give equal numbers, and every policy ends every action.
func TestSameSceneSameOutcome(t *testing.T) {
	s := sceneOf(10, true, 7)
	s.perSlot = 20
	for _, p := range policies {
		first, second := p.play(s), p.play(s)
		if first != second || first.makespan > 1e4 {
			t.Errorf("%s: %+v, then %+v", p.name, first, second)
		}
	}
}

// The clairvoyant's plan is never shorter than the work there is.
func TestClairvoyantIsPossible(t *testing.T) {
	w := newWorld(sceneOf(30, false, 4))
	work, speed, longest := 0.0, 0.0, 0.0
	for _, a := range w.acts {
		work, longest = work+a.seconds, max(longest, a.rank)
	}
	for _, n := range w.nodes {
		speed += n.speed * float64(n.slots)
	}
	if o := clairvoyant(w.scene); o.makespan < work/speed || o.makespan < longest/2 || o.makespan > 1.1*max(work/speed, longest) {
		t.Errorf("makespan %.2f s of work for %.2f s, the longest path %.2f s", o.makespan, work/speed, longest)
	}
}

// The work of a decision does not grow with the number of nodes: counted, not timed.
func TestDecisionsAreFlat(t *testing.T) {
	allocated := func(nodes int) float64 {
		f := newFlow(nodes, 6*nodes)
		count := f.count
		allocations := testing.AllocsPerRun(1000, f.turn)
		if placed := f.count - count; placed < 1000 {
			t.Errorf("%d nodes: only %d of 1,000 actions were placed", nodes, placed)
		}
		return allocations
	}
	few, many := allocated(100), allocated(3000)
	if many > 2*few+20 {
		t.Errorf("%.0f allocations a decision with 100 nodes, %.0f with 3,000", few, many)
	}
}

func BenchmarkDecision(b *testing.B) {
	for _, nodes := range []int{100, 1000, 10000} {
		for _, in := range flights {
			b.Run(fmt.Sprintf("%d nodes, %s", nodes, in.name), func(b *testing.B) {
				f := newFlow(nodes, in.of(nodes))
				for b.Loop() {
					f.turn()
				}
			})
		}
	}
}

// A log of Bazel becomes a trace with the dependencies that outputs show.
func TestRecord(t *testing.T) {
	log := `{"mnemonic":"CppCompile","targetLabel":"//a","inputs":[{"path":"a.cc","digest":{"sizeBytes":"10"}},{"path":"a.h","digest":{"sizeBytes":"5"}}],
"actualOutputs":[{"path":"a.o","digest":{"sizeBytes":"7"}}],"metrics":{"executionWallTime":"0.250s"}}
{"mnemonic":"TestRunner","targetLabel":"//c","metrics":{}}
{"mnemonic":"CppLink","targetLabel":"//b","inputs":[{"path":"a.o","digest":{"sizeBytes":"7"}}],"actualOutputs":[{"path":"b"}],"metrics":{"executionWallTime":"0.0004s"}}`
	var b bytes.Buffer
	if err := convert(strings.NewReader(log), &b); err != nil {
		t.Fatal(err)
	}
	want := "# mnemonic milliseconds input-bytes output-bytes target needs\nCppCompile 250 15 7 0 -\nCppLink 1 7 0 1 -0\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	if err := convert(strings.NewReader(log[:len(log)-9]), &b); err == nil || !strings.Contains(err.Error(), "after 1 actions") {
		t.Errorf("a log that breaks off: %v", err)
	}
	if _, err := readTrace([]byte("no gzip")); err == nil {
		t.Error("a trace that is none was read")
	}
}

// -actions stands for what sceneOf chooses, in every scene, calm and disturbed.
func TestScenes(t *testing.T) {
	chosen, asked := scenes([]int{30, 1000}, 0, 7), scenes([]int{1000}, 40, 7)
	want := []scene{sceneOf(30, false, 7), sceneOf(1000, false, 7), sceneOf(30, true, 7), sceneOf(1000, true, 7)}
	if !slices.Equal(chosen, want) {
		t.Errorf("%+v", chosen)
	}
	want = []scene{{nodes: 1000, initiators: 32, perSlot: 40, seed: 7}, {nodes: 1000, initiators: 32, perSlot: 40, disturbed: true, seed: 7}}
	if !slices.Equal(asked, want) {
		t.Errorf("%+v", asked)
	}
}

// The table has a row for each scene, and the picture a line for each policy.
func TestReport(t *testing.T) {
	s := sceneOf(3, false, 1)
	s.perSlot = 5
	disturbed := s
	disturbed.disturbed = true
	rows := []row{{scene: s}, {scene: disturbed}}
	for i := range rows {
		for _, p := range policies {
			rows[i].outcomes = append(rows[i].outcomes, p.play(rows[i].scene))
		}
	}
	var table, picture bytes.Buffer
	if err := writeTable(&table, rows); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(table.String(), "\n| 3 nodes"); n != 2 {
		t.Errorf("%d rows:\n%s", n, table.String())
	}
	if err := writePicture(&picture, rows); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(picture.String(), "<polyline"); n != 4*len(policies) || strings.Contains(picture.String(), "NaN") {
		t.Errorf("%d lines:\n%s", n, picture.String())
	}
}

// A small build does not wait for a large one of another initiator: slots go to initiators in turn.
func TestSmallBuildBesideLargeOne(t *testing.T) {
	w := newWorld(scene{nodes: 10, initiators: 2, perSlot: 60, seed: 1})
	for _, a := range w.acts {
		a.initiator = 0
		if a.id < len(samples()) {
			a.initiator = 1
		}
	}
	meshed(w)
	all := w.play().makespan
	small := 0.0
	for _, a := range w.acts {
		if a.initiator == 1 {
			small = max(small, a.doneAt)
		}
	}
	if small > all/2 {
		t.Errorf("the small build took %.1f s beside one of %.1f s", small, all)
	}
	t.Logf("the small build took %.1f s beside one of %.1f s", small, all)
}
