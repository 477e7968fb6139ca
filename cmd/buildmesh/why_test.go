package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "write the golden texts")

// golden compares a text with testdata/name, or writes it there with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was; go test ./cmd/buildmesh -update writes it. Now:\n%s", file, got)
	}
}

// whyNow is the present of these tests.
var whyNow = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func took(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// ranEntry is an action that was slow at one member and ran at another.
func ranEntry() *journalv1.Entry {
	return &journalv1.Entry{
		Sequence: 7, At: timestamppb.New(whyNow.Add(-3 * time.Second)), Action: "9f2c11d07a3be50c4d1e/142", Target: "//app:grep", Mnemonic: "CppCompile",
		Output: "bazel-out/k8-fastbuild/bin/app/grep.o", Cache: &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_MISS},
		Placing: &journalv1.Placing{Class: "fingerprinted", Waited: took(14 * time.Millisecond), Attempts: []*journalv1.Attempt{
			{Number: 1, Name: "ben", Cores: 1, Scores: []*journalv1.Score{
				{Name: "ben", Total: 1.12, Speed: 1, Load: 0.15, Locality: 0.25, Transfer: 0.02}, {Name: "cleo", Total: 0.85, Speed: 1, Load: 0.15},
				{Name: "ana", Refused: "no free slot"}, {Name: "dan", Refused: "closed"},
			}, Events: []*journalv1.Event{{After: took(15 * time.Millisecond), What: "leased 1 core"}, {After: took(2300 * time.Millisecond), What: "cancelled: no longer wanted"}}},
			{Number: 2, Name: "ana", Self: true, Hedge: true, Won: true, Events: []*journalv1.Event{{After: took(2200 * time.Millisecond), What: "done, exit code 0"}}},
		}},
		Timeline: &journalv1.Timeline{Total: took(2210 * time.Millisecond), Queued: took(14 * time.Millisecond), Fetch: took(3 * time.Millisecond), Run: took(900 * time.Millisecond), Upload: took(400 * time.Microsecond)},
		Outcome:  &journalv1.Outcome{Worker: "ana", Outputs: 2, OutputBytes: 13 << 10, OutputsSum: 5, Processor: took(880 * time.Millisecond), MemoryBytes: 61 << 20},
		Remarks:  []*journalv1.Remark{{Text: "made again by cleo: the same outputs", At: timestamppb.New(whyNow.Add(-time.Second))}},
	}
}

// TestWhyText: the text for each kind of answer, as people read it.
func TestWhyText(t *testing.T) {
	before := ranEntry()
	before.Action, before.At = "1b00aa0000000000/142", timestamppb.New(whyNow.Add(-4*time.Minute))
	changed := &controlv1.WhyResponse{Entry: ranEntry(), Before: before, MoreChanges: 3, Unknown: []string{"what changed below third_party: the store has evicted that directory"},
		Changes: []*controlv1.Change{
			{Part: "input", Subject: "app/grep.cc", What: "changed", Old: "87428fc5 (210 bytes)", New: "333d36c1 (214 bytes)"},
			{Part: "input", Subject: "app/new.h", What: "added", New: "333d36c1 (214 bytes)"},
			{Part: "environment", Subject: "PATH", What: "changed", Old: "/bin", New: "/usr/bin:/bin"},
			{Part: "command", Subject: "argument 3", What: "removed", Old: "-O2"},
		},
		Also: []*journalv1.Entry{
			{Action: "77aa77aa77aa77aa/90", Mnemonic: "CppLink", Output: "bin/app/grep", Cache: &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_HIT_MEMBER, From: "ben"}, Outcome: &journalv1.Outcome{Worker: "cleo"}},
			{Action: "88aa77aa77aa77aa/90", Mnemonic: "CppCompile", Output: "bin/app/b.o", Cache: &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_MISS}, Outcome: &journalv1.Outcome{Worker: "cleo"}, Timeline: &journalv1.Timeline{Total: took(time.Second)}},
		}, MoreAlso: 12,
	}
	hit := ranEntry()
	hit.Cache, hit.Placing, hit.Remarks = &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_HIT_MEMBER, From: "ben"}, nil, nil
	failed := ranEntry()
	failed.Outcome = &journalv1.Outcome{Status: 9, StatusText: "no member offers ISA x86-64-v4"}
	failed.Cache = &journalv1.Cache{Verdict: journalv1.Cache_VERDICT_REFUSED}
	failed.Placing, failed.Timeline, failed.Remarks = nil, &journalv1.Timeline{Total: took(200 * time.Microsecond)}, nil
	again := proto.CloneOf(before)
	again.Outcome.ExitCode = 1
	merged := ranEntry()
	merged.Merged, merged.Placing, merged.Remarks = "ben", nil, nil
	vain := ranEntry()
	vain.Vain, vain.Placing.Attempts = "waited 5 s for ben's: it left", vain.Placing.Attempts[1:]
	element, nameless := ranEntry(), ranEntry()
	element.Target, element.Mnemonic = "greeting/hello.bst", ""
	nameless.Target, nameless.Mnemonic, nameless.Words = "", "", "gcc -c \x1b[2Ja.c"
	element.Output, nameless.Output = ".", "out\x1b[2J"
	var out bytes.Buffer
	for _, c := range []struct {
		name   string
		answer *controlv1.WhyResponse
	}{
		{"a changed input", changed},
		{"a hit", &controlv1.WhyResponse{Entry: hit}},
		{"nobody fulfils it", &controlv1.WhyResponse{Entry: failed}},
		{"it failed before", &controlv1.WhyResponse{Entry: ranEntry(), Before: again, Same: again}},
		{"a member ran it at the same time", &controlv1.WhyResponse{Entry: merged}},
		{"a member ran it at the same time, and left", &controlv1.WhyResponse{Entry: vain}},
		{"an element", &controlv1.WhyResponse{Entry: element}},
		{"a client that names nothing", &controlv1.WhyResponse{Entry: nameless}},
		{"the same action", &controlv1.WhyResponse{Entry: before, Before: before, Same: before}},
	} {
		out.WriteString("== " + c.name + "\n")
		v := &verbContext{out: &out}
		if err := v.table(whyRows(c.answer, whyNow), changeRows(c.answer, 3, whyNow), alsoRows(c.answer)); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "why.txt", out.String())
}

// TestWhyUsage: why wants one subject.
func TestWhyUsage(t *testing.T) {
	for _, args := range [][]string{{"why"}, {"why", "--last", "//a"}} {
		if a := typed(t, args...); a.status != statusUsage {
			t.Errorf("%v: %+v", args, a)
		}
	}
}
