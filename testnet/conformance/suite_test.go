package conformance

import (
	"context"
	"slices"
	"strings"
	"testing"
	"unicode"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/testnet/wrong"
)

// TestChecksAreDescribed holds the table of checks against what it promises: every claim is a
// name, said once in its section, with a rule and a source.
func TestChecksAreDescribed(t *testing.T) {
	onlyInMemory(t)
	for _, sec := range Sections() {
		said := map[string]bool{}
		for _, c := range sec.Checks {
			if c.Claim == "" || c.Rule == "" || c.Source == "" || c.Run == nil || said[c.Claim] {
				t.Errorf("%s/%s: claim, rule, source and run have to be set, and the claim to be new", sec.Name, c.Claim)
			}
			said[c.Claim] = true
			if i := strings.IndexFunc(c.Claim, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }); i >= 0 {
				t.Errorf("%s/%s: the claim is no test name", sec.Name, c.Claim)
			}
			for _, f := range c.Needs {
				if !slices.Contains(Features(), f) {
					t.Errorf("%s/%s: needs the unknown feature %s", sec.Name, c.Claim, f)
				}
			}
		}
	}
}

// TestAbsentFeatures: what a server does not offer is skipped with words, and fails when required.
func TestAbsentFeatures(t *testing.T) {
	onlyInMemory(t)
	ran := false
	c := Check{Claim: "x", Needs: []Feature{Splice}, Run: func(context.Context, T, *Subject) { ran = true }}
	s := &Subject{absent: map[Feature]string{Splice: "not today"}, required: map[Feature]bool{}, patience: defaultPatience}
	if r := Record(t.Context(), c, s); r.Outcome != Skipped || !strings.Contains(r.String(), "not today") || ran {
		t.Errorf("absent: outcome %d, %q, ran %v", r.Outcome, r, ran)
	}
	s.required[Splice] = true
	if r := Record(t.Context(), c, s); r.Outcome != Failed || ran {
		t.Errorf("absent and required: outcome %d, %q, ran %v", r.Outcome, r, ran)
	}
	delete(s.absent, Splice)
	if r := Record(t.Context(), c, s); r.Outcome != Passed || !ran {
		t.Errorf("offered: outcome %d, %q, ran %v", r.Outcome, r, ran)
	}
}

// TestRecorder: a check that fails and then skips has failed, and nothing runs after Fatalf.
func TestRecorder(t *testing.T) {
	onlyInMemory(t)
	s := &Subject{patience: defaultPatience}
	for name, c := range map[string]struct {
		run  func(context.Context, T, *Subject)
		want Outcome
	}{
		"passes":          {func(context.Context, T, *Subject) {}, Passed},
		"fails":           {func(_ context.Context, t T, _ *Subject) { t.Errorf("a") }, Failed},
		"fails and skips": {func(_ context.Context, t T, _ *Subject) { t.Errorf("a"); t.Skipf("b") }, Failed},
		"skips":           {func(_ context.Context, t T, _ *Subject) { t.Skipf("b"); t.Errorf("never") }, Skipped},
		"ends":            {func(_ context.Context, t T, _ *Subject) { t.Fatalf("a"); panic("never") }, Failed},
	} {
		if r := Record(t.Context(), Check{Run: c.run}, s); r.Outcome != c.want {
			t.Errorf("%s: outcome %d, want %d", name, r.Outcome, c.want)
		}
	}
}

func TestParseFeatures(t *testing.T) {
	onlyInMemory(t)
	if fs, err := ParseFeatures("zstd,operations"); err != nil || !slices.Equal(fs, []Feature{Zstd, Operations}) {
		t.Errorf("two features: %v, %v", fs, err)
	}
	if fs, err := ParseFeatures("all"); err != nil || len(fs) != len(Features()) {
		t.Errorf("all: %v, %v", fs, err)
	}
	if _, err := ParseFeatures("zstd,unheard"); err == nil || !strings.Contains(err.Error(), "unheard") {
		t.Errorf("an unknown feature: %v", err)
	}
}

// TestKnownDigests compares the suite's functions with published values: the suite must not
// agree with a server by making the same mistake.
func TestKnownDigests(t *testing.T) {
	onlyInMemory(t)
	for v, want := range map[repb.DigestFunction_Value]string{ // of "abc"
		repb.DigestFunction_SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		repb.DigestFunction_SHA1:   "a9993e364706816aba3e25717850c26c9cd0d89d",
		repb.DigestFunction_MD5:    "900150983cd24fb0d6963f7d28e17f72",
		repb.DigestFunction_BLAKE3: "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
	} {
		f, known := functionOf(v)
		if got := f.Of([]byte("abc")); !known || got.Hash != want || got.SizeBytes != 3 {
			t.Errorf("%s of abc is %s, want %s", v, show(got), want)
		}
	}
	if _, known := functionOf(repb.DigestFunction_VSO); known {
		t.Error("VSO passes for known")
	}
}

// TestTwiceAtOnce runs the same checks against one server from two sides: all content is new, so
// they do not meet.
func TestTwiceAtOnce(t *testing.T) {
	onlyInMemory(t)
	t.Parallel()
	s := connect(t, wrong.None)
	for _, section := range []string{"CAS", "ActionCache", "ByteStreamWrite"} {
		for _, sec := range Sections() {
			if sec.Name != section {
				continue
			}
			for _, c := range sec.Checks {
				other := make(chan *Recorder)
				go func() { other <- Record(t.Context(), c, s) }()
				for _, r := range []*Recorder{Record(t.Context(), c, s), <-other} {
					if r.Outcome != Passed {
						t.Errorf("%s/%s beside itself: outcome %d, %s", section, c.Claim, r.Outcome, r)
					}
				}
			}
		}
	}
}
