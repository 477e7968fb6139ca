package chaos

import (
	"slices"
	"testing"
	"time"
)

// Plans of many seeds keep to the rules, and between them do everything to everyone.
func TestMake(t *testing.T) {
	nodes := []string{"ben", "cai", "dan", "eva"}
	const within = 30 * time.Second
	seen := map[Kind]map[string]bool{}
	for seed := range int64(300) {
		plan := Make(seed, nodes, within, Kinds())
		if again := Make(seed, nodes, within, Kinds()); !slices.Equal(plan, again) {
			t.Fatalf("seed %d makes two plans:\n%s\nand\n%s", seed, plan, again)
		}
		touched := map[string]bool{}
		for i, e := range plan {
			touched[e.Node] = true
			if seen[e.Kind] == nil {
				seen[e.Kind] = map[string]bool{}
			}
			seen[e.Kind][e.Node] = true
			if e.At < 0 || e.At >= within || e.Kind.forGood() != (e.For == 0) || e.For > longest {
				t.Errorf("seed %d: %s", seed, e)
			}
			for _, f := range plan[:i] {
				both := f.At+f.For >= e.At
				if both && (f.Node == e.Node || f.Kind.network() && e.Kind.network()) {
					t.Errorf("seed %d: %s while %s", seed, e, f)
				}
				if f.Node == e.Node && f.Kind == Revoke {
					t.Errorf("seed %d: %s after %s", seed, e, f)
				}
			}
		}
		if len(touched) == len(nodes) {
			t.Errorf("seed %d spares nobody:\n%s", seed, plan)
		}
		if plan.End() > within+longest {
			t.Errorf("seed %d ends at %v", seed, plan.End())
		}
	}
	for _, kind := range Kinds() {
		if len(seen[kind]) != len(nodes) {
			t.Errorf("%s is done only to %v", kind, seen[kind])
		}
	}
	if plan := Make(1, nodes, within, nil); len(plan) != 0 {
		t.Errorf("without kinds there is %s", plan)
	}
}
