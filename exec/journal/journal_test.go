package journal

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// open opens a journal that ends with the test.
func open(t testing.TB, o Options) *Journal {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	j, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// find gives the entry for a subject.
func find(t testing.TB, j *Journal, subject string) *Found {
	t.Helper()
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := j.Find(Query{Subject: subject, Label: func(s string) string { return strings.TrimLeft(s, "@") }})
	if err != nil {
		t.Fatalf("%q: %v", subject, err)
	}
	return f
}

// TestLifeOfAJournal: what is noted is found by hash, target and as the last, with what came before and after it, also by
// the next process, and in the order it was noted whatever the clock did.
func TestLifeOfAJournal(t *testing.T) {
	dir, blobs := t.TempDir(), newBlobs()
	j := open(t, Options{Dir: dir, Name: func(peer.ID) string { return "ben" }})
	first := blobs.ending(t, work{target: "//a", files: map[string]string{"src/a.cc": "1"}})
	second := blobs.ending(t, work{target: "//a", files: map[string]string{"src/a.cc": "2"}})
	second.Created = time.Now().Add(time.Hour) // the clock was set back meanwhile
	second.Placement = &place.Trace{Class: place.Fingerprinted, Waited: time.Second, Attempts: []place.Attempt{
		{Attempt: 1, Scores: []place.Score{{Total: 2}, {Refused: "closed"}}, Events: []place.Event{{After: time.Second, What: "leased"}}, Won: true},
		{Attempt: 2, Hedge: true},
	}}
	j.Ended(first)
	j.Ended(second)
	merged := blobs.ending(t, work{target: "//b"})
	merged.Merged, merged.Vain = "ben", errors.New("waited 5 s for cleo's: it left")
	j.Ended(merged)
	j.Hit(Hit{Action: first.Action.Digest, From: "ben", Result: first.Response.Result, Meta: first.Request.Meta})
	j.Remark(first.Action.Digest, "audited: equal")

	for _, again := range []bool{false, true} {
		if again {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			j = open(t, Options{Dir: dir})
		}
		last := find(t, j, "").Entry
		if last.Action != first.Action.Digest.String() || last.Cache.Verdict != journalv1.Cache_VERDICT_HIT_MEMBER || last.Cache.From != "ben" {
			t.Errorf("the last: %v", last)
		}
		if len(last.Remarks) != 1 || last.Remarks[0].Text != "audited: equal" {
			t.Errorf("remarks %v", last.Remarks)
		}
		before, err := j.Before(last)
		if err != nil || before.GetAction() != second.Action.Digest.String() {
			t.Errorf("before the hit: %v, %v", before, err)
		}
		same, err := j.Last(last)
		if err != nil || same.GetSequence() != 1 {
			t.Errorf("the same action before: %v, %v", same, err)
		}
		ran := find(t, j, second.Action.Digest.Hex()[:6]).Entry
		if ran.Sequence != 2 || ran.Timeline.Total.AsDuration() < 0 || ran.Placing.Class != "fingerprinted" || len(ran.Placing.Attempts) != 2 ||
			ran.Placing.Attempts[0].Scores[1].Refused != "closed" || !ran.Placing.Attempts[1].Hedge || ran.Placing.Attempts[0].Name != "ben" {
			t.Errorf("by its hash: %v", ran)
		}
		target := find(t, j, "@//a")
		if target.Entry.Sequence != 2 || len(target.Also) != 2 || target.More != 0 {
			t.Errorf("by its target: %v", target)
		}
		only := find(t, j, "//b").Entry
		if only.Merged != "ben" || only.Vain != "waited 5 s for cleo's: it left" || only.Placing != nil || ran.Merged+ran.Vain != "" {
			t.Errorf("what was merged: %v", only)
		}
		if none, err := j.Before(only); none != nil || err != nil {
			t.Errorf("before the first of its kind: %v, %v", none, err)
		}
		if _, err := j.Find(Query{Subject: "//none"}); !errors.Is(err, ErrUnknown) {
			t.Errorf("what nobody asked for: %v", err)
		}
		if all := j.Targets(); !slices.Equal(all, []string{"//a", "//b"}) {
			t.Errorf("targets %v", all)
		}
	}
}

// TestRemarkBeforeTheEnd: what is remarked while an action is made again belongs to that entry, what was before it began to the last.
func TestRemarkBeforeTheEnd(t *testing.T) {
	j, blobs := open(t, Options{Dir: t.TempDir()}), newBlobs()
	once := blobs.ending(t, work{target: "//a"})
	again := once
	again.Request.Meta.Invocation = "again"
	j.Ended(once)
	j.Remark(once.Action.Digest, "audited: equal")
	j.Ended(blobs.ending(t, work{target: "//b"}))
	again.Created = time.Now()
	j.Remark(once.Action.Digest, "both copies: equal")
	j.Ended(again)
	j.Remark(once.Action.Digest, "audited again: equal")
	texts := func(e *journalv1.Entry) (all []string) {
		for _, r := range e.Remarks {
			all = append(all, r.Text)
		}
		return all
	}
	last := find(t, j, "//a").Entry
	if got := texts(last); !slices.Equal(got, []string{"both copies: equal", "audited again: equal"}) || last.Invocation != "again" {
		t.Errorf("of the second time, %s: %q", last.Invocation, got)
	}
	first, err := j.Before(last)
	if got := texts(first); err != nil || len(got) == 0 || got[0] != "audited: equal" {
		t.Errorf("of the first: %q, %v", got, err)
	}
}

// TestRead: another process reads what is whole, of all segments.
func TestRead(t *testing.T) {
	dir, blobs := t.TempDir(), newBlobs()
	j := open(t, Options{Dir: dir, MaxBytes: segments << 11})
	var want []string
	for i := range 12 {
		target := fmt.Sprint("//", i)
		j.Ended(blobs.ending(t, work{target: target}))
		want = append(want, target)
		if err := j.Flush(t.Context()); err != nil { // what is written at once stands in one segment
			t.Fatal(err)
		}
	}
	j.Remark(blobs.ending(t, work{target: "//0"}).Action.Digest, "audited: equal")
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := list(dir)
	if err != nil || len(found) < 2 {
		t.Fatalf("%d segments, %v", len(found), err)
	}
	last, err := os.OpenFile(j.log.path(found[len(found)-1].number), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = last.WriteString("half a rec")
	if err := errors.Join(err, last.Close()); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := Read(dir, func(e *journalv1.Entry) { got = append(got, e.Target) }); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if err := Read(filepath.Join(dir, "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a journal that is not there: %v", err)
	}
}

// TestClockJumps: the parts of a timeline are never negative, whichever clock jumped.
func TestClockJumps(t *testing.T) {
	blobs := newBlobs()
	e := blobs.ending(t, work{target: "//a"})
	m := e.Response.Result.ExecutionMetadata
	at := time.Now()
	m.ExecutionStartTimestamp, m.ExecutionCompletedTimestamp = timestamppb.New(at), timestamppb.New(at.Add(-time.Hour))
	m.QueuedTimestamp, m.WorkerStartTimestamp = timestamppb.New(at), timestamppb.New(at.Add(2*time.Second))
	j := open(t, Options{})
	j.Ended(e)
	got := find(t, j, "").Entry.Timeline
	if got.Run.AsDuration() != 0 || got.Queued.AsDuration() != 2*time.Second || got.Fetch != (*durationpb.Duration)(nil) {
		t.Errorf("timeline %v", got)
	}
}

// TestKilled: wherever a process was killed while it wrote, the entries before are there and new ones follow.
func TestKilled(t *testing.T) {
	blobs, whole := newBlobs(), t.TempDir()
	j := open(t, Options{Dir: whole})
	j.Ended(blobs.ending(t, work{target: "//a"}))
	find(t, j, "")
	first := size(t, whole)
	j.Ended(blobs.ending(t, work{target: "//b"}))
	find(t, j, "")
	data, err := os.ReadFile(only(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	for cut := int(first); cut < len(data); cut += 7 {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(only(t, whole))), data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open(t, Options{Dir: dir})
		if e := find(t, j, "").Entry; e.Target != "//a" {
			t.Fatalf("cut at %d: the last is %v", cut, e)
		}
		j.Ended(blobs.ending(t, work{target: "//c"}))
		if e := find(t, j, "//c").Entry; e.Sequence != 2 {
			t.Fatalf("cut at %d: the next is %v", cut, e)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open(t, Options{Dir: dir})
		find(t, j, "//a")
		find(t, j, "//c")
		if err := j.Close(); err != nil { // many are open else
			t.Fatal(err)
		}
	}
}

func only(t testing.TB, dir string) string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(all) != 1 {
		t.Fatalf("segments %v, %v", all, err)
	}
	return all[0]
}

// size is the bytes of all segments.
func size(t testing.TB, dir string) (total int64) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// TestDamagedSegment: a byte that changed on disk costs the rest of its segment, and nothing else.
func TestDamagedSegment(t *testing.T) {
	dir, blobs := t.TempDir(), newBlobs()
	j := open(t, Options{Dir: dir, MaxBytes: segments << 10})
	for i := range 10 {
		j.Ended(blobs.ending(t, work{target: fmt.Sprintf("//t%d", i), args: []string{strings.Repeat("x", 300)}}))
		find(t, j, "")
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if len(all) < 3 {
		t.Fatalf("only %d segments", len(all))
	}
	data, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	data[header+1] ^= 1
	if err := os.WriteFile(all[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, Options{Dir: dir, MaxBytes: segments << 10})
	find(t, j, "//t9")
	if _, err := j.Find(Query{Subject: "//t0"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("the damaged one: %v", err)
	}
}

// TestBounds: neither the bytes nor the entries grow beyond their bounds, and the newest entries stay.
func TestBounds(t *testing.T) {
	dir, blobs := t.TempDir(), newBlobs()
	const most = 32 << 10
	j := open(t, Options{Dir: dir, MaxBytes: most, MaxEntries: 40})
	e := blobs.ending(t, work{target: "//a"})
	e.Response.Message = strings.Repeat("long ", 1000)
	for i := range 200 {
		e.Request.Meta.Target = fmt.Sprintf("//t%d", i)
		j.Ended(e)
		if i%20 == 0 {
			find(t, j, e.Request.Meta.Target)
		}
	}
	find(t, j, "//t199")
	if got := size(t, dir); got > most+most/4 {
		t.Errorf("%d bytes on disk, at most %d are wanted", got, most)
	}
	if n := len(j.index.all); n > 46 {
		t.Errorf("%d entries", n)
	}
	if _, err := j.Find(Query{Subject: "//t0"}); !errors.Is(err, ErrUnknown) {
		t.Errorf("the oldest: %v", err)
	}
	if all, _ := filepath.Glob(filepath.Join(dir, "*")); len(all) > segments+2 {
		t.Errorf("%d files", len(all))
	}
}

// TestNeverWaits: with a writer that stands still, noting goes on, and what does not fit is counted.
func TestNeverWaits(t *testing.T) {
	blobs := newBlobs()
	j := open(t, Options{})
	e := blobs.ending(t, work{target: "//a"})
	j.mu.Lock() // the writer stops here
	for range 2 * maxPending {
		j.Ended(e)
	}
	lost := j.Lost()
	j.mu.Unlock()
	if lost < maxPending-2*maxBatch || lost > maxPending {
		t.Errorf("%d lost of %d", lost, 2*maxPending)
	}
	find(t, j, "//a")
}

// TestDiskFault: a disk that takes nothing costs the entries of that time, is told once, and ends nothing.
func TestDiskFault(t *testing.T) {
	dir, blobs := filepath.Join(t.TempDir(), "journal"), newBlobs()
	var told atomic.Int64
	j := open(t, Options{Dir: dir, OnError: func(error) { told.Add(1) }})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		j.Ended(blobs.ending(t, work{target: "//a"}))
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if told.Load() != 1 || j.Lost() != 3 {
		t.Errorf("told %d times, %d lost", told.Load(), j.Lost())
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	j.Ended(blobs.ending(t, work{target: "//b"}))
	find(t, j, "//b")
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	j.Ended(blobs.ending(t, work{target: "//c"})) // nothing happens
	if err := j.Flush(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestNoTarget: without a target the same command with the same output is the same work.
func TestNoTarget(t *testing.T) {
	blobs := newBlobs()
	j := open(t, Options{})
	for _, w := range []work{{target: "//a", args: []string{"x"}, files: map[string]string{"f": "1"}}, {target: "//a", args: []string{"y"}},
		{target: "//a", args: []string{"x"}, files: map[string]string{"f": "2"}}} {
		e := blobs.ending(t, w)
		e.Request.Meta = flight.Meta{}
		j.Ended(e)
	}
	last := find(t, j, "").Entry
	if before, err := j.Before(last); err != nil || before.GetSequence() != 1 {
		t.Errorf("before: %v, %v", before, err)
	}
	if last.Words != "cc x" {
		t.Errorf("its command begins with %q", last.Words)
	}
}

// TestNamed: an action is called what its client called it last, whatever was asked for without a word since; and what names no
// invocation belongs to none.
func TestNamed(t *testing.T) {
	blobs := newBlobs()
	j := open(t, Options{})
	first, other := blobs.ending(t, work{target: "//a"}), blobs.ending(t, work{target: "//b", args: []string{"y"}})
	first.Request.Meta, other.Request.Meta = flight.Meta{Mnemonic: "Old", Target: "p/e.bst"}, flight.Meta{}
	j.Ended(first)
	first.Request.Meta.Mnemonic = "New"
	j.Ended(first)
	j.Ended(other)
	j.Hit(Hit{Action: first.Action.Digest, Result: &repb.ActionResult{}})
	found := find(t, j, "p/e.bst")
	if len(found.Also) != 0 || found.Entry.Mnemonic != "New" {
		t.Errorf("%v, and also %v", found.Entry, found.Also)
	}
	named, err := j.Named(other.Action.Digest.String(), "ab/1", first.Action.Digest.String(), first.Action.Digest.String())
	if err != nil || len(named) != 4 || named[0].GetWords() != "cc y" || named[1] != nil || named[2].GetMnemonic() != "New" || named[3].GetTarget() != "p/e.bst" {
		t.Errorf("named %v, %v", named, err)
	}
}

// FuzzScan: whatever stands in a segment, reading it ends, what is read is what was checked, and what is learned from it is sane.
func FuzzScan(f *testing.F) {
	good, err := encode(nil, &journalv1.Record{Entry: &journalv1.Entry{Sequence: 1, Action: "ab/1", Target: "//a"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), good[:len(good)-1]...))
	f.Add([]byte{255, 255, 255, 255, 0, 0, 0, 0})
	absurd := &journalv1.Need{Run: &durationpb.Duration{Seconds: -1 << 63, Nanos: -1}, Cores: math.NaN(), MemoryBytes: -1, InputBytes: 1 << 62, OutputBytes: -1 << 63}
	taught, err := encode(nil, &journalv1.Record{Entry: &journalv1.Entry{Placing: &journalv1.Placing{Need: absurd}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Repeat(taught, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		history := place.NewHistory()
		j := &Journal{options: Options{Learned: history.Add}, index: index{most: 10}}
		end := int64(0)
		got := scan(data, func(offset, payload int64, r *journalv1.Record) {
			if offset != end {
				t.Errorf("a record at %d after one that ends at %d", offset, end)
			}
			end = offset + header + payload
			j.known(positionOf(r), r)
			if e := history.Of(r.GetEntry().GetMnemonic()); e.Median < 0 || e.P95 < 0 || !(e.Cores >= 0) || e.MemoryBytes < 0 || e.InputBytes < 0 || e.OutputBytes < 0 {
				t.Errorf("estimate %+v", e)
			}
		})
		if got != end || got > int64(len(data)) {
			t.Errorf("%d of %d bytes are good, the last record ends at %d", got, len(data), end)
		}
	})
}

// BenchmarkEnded is what noting an action costs: caller is the time taken from the execution itself, written that of the
// whole, with the writer's.
func BenchmarkEnded(b *testing.B) {
	blobs := newBlobs()
	e := blobs.ending(b, work{target: "//a", files: map[string]string{"src/a.cc": "1"}})
	scores := make([]place.Score, 8)
	e.Placement = &place.Trace{Attempts: []place.Attempt{{Scores: scores, Events: make([]place.Event, 3)}}}
	b.Run("caller", func(b *testing.B) {
		j := open(b, Options{Name: func(peer.ID) string { return "ben" }})
		for b.Loop() {
			j.Ended(e)
		}
	})
	b.Run("written", func(b *testing.B) {
		j := open(b, Options{Name: func(peer.ID) string { return "ben" }})
		for i := 0; b.Loop(); i++ {
			j.Ended(e)
			if i%1000 == 999 {
				if err := j.Flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(float64(j.Lost()), "lost")
	})
}
