package journal

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// lines are a difference's changes, one a line.
func lines(d *Difference) string {
	var out []string
	for _, c := range d.Changes {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s>%s", c.Part, c.Subject, c.What, c.Old, c.New)))
	}
	return strings.Join(out, "\n")
}

// entries are two works as the journal has them.
func entries(t *testing.T, blobs *fakeBlobs, old, fresh work) (*journalv1.Entry, *journalv1.Entry) {
	t.Helper()
	j := &Journal{options: Options{}.withDefaults()}
	return j.entryOf(blobs.ending(t, old), time.Now()), j.entryOf(blobs.ending(t, fresh), time.Now())
}

func TestCompare(t *testing.T) {
	base := work{target: "//a", args: []string{"-O2", "-c", "a.cc"}, env: map[string]string{"PATH": "/bin"}, files: map[string]string{"src/a.cc": "1", "src/lib/b.h": "b", "z": "z"}}
	with := func(bend func(w *work)) work {
		w := base
		w.env, w.files = maps.Clone(base.env), maps.Clone(base.files)
		bend(&w)
		return w
	}
	one, two := short(digest.SHA256.Of([]byte("1")).Proto()), short(digest.SHA256.Of([]byte("2")).Proto())
	for _, c := range []struct {
		name  string
		fresh work
		want  string
	}{
		{"nothing", base, ""},
		{"a file", with(func(w *work) { w.files["src/a.cc"] = "2" }), "input src/a.cc changed " + one + ">" + two},
		{"a file more and one less", with(func(w *work) { delete(w.files, "z"); w.files["src/new.h"] = "1" }), "input z removed " + short(digest.SHA256.Of([]byte("z")).Proto()) + ">\ninput src/new.h added >" + one},
		{"a directory less", with(func(w *work) { delete(w.files, "src/lib/b.h") }), "input src/lib/ removed"},
		{"a file for a directory", with(func(w *work) { delete(w.files, "src/lib/b.h"); w.files["src/lib"] = "1" }), "input src/lib changed"},
		{"the environment", with(func(w *work) { w.env["PATH"] = "/usr/bin"; w.env["CC"] = "gcc" }), "environment CC added >gcc\nenvironment PATH changed /bin>/usr/bin"},
		{"arguments", with(func(w *work) { w.args = []string{"-O0", "-g", "-c", "a.cc"} }), "command argument 1 changed -O2>-O0 -g"},
		{"an argument more", with(func(w *work) { w.args = []string{"-O2", "-c", "a.cc", "-v"} }), "command argument 4 added >-v"},
		{"the platform", with(func(w *work) { w.pool = "fast" }), "platform Pool added >fast"},
		{"caching", with(func(w *work) { w.uncache = true }), "caching do_not_cache changed false>true"},
	} {
		t.Run(c.name, func(t *testing.T) {
			blobs := newBlobs()
			old, fresh := entries(t, blobs, base, c.fresh)
			d, err := Compare(t.Context(), blobs, old, fresh)
			if err != nil {
				t.Fatal(err)
			}
			if got := lines(d); got != c.want && !(c.want != "" && strings.HasPrefix(got, c.want)) || len(d.Unknown) > 0 {
				t.Errorf("got\n%s\nwant\n%s\nunknown %v", got, c.want, d.Unknown)
			}
		})
	}
}

// TestCompareReadsOnlyWhatDiffers: of two large trees only the directories on the way to the difference are read.
func TestCompareReadsOnlyWhatDiffers(t *testing.T) {
	blobs := newBlobs()
	files := map[string]string{}
	for i := range 500 {
		files[fmt.Sprintf("d%d/e/f", i)] = "same"
	}
	old, fresh := work{target: "//a", files: maps.Clone(files)}, work{target: "//a", files: files}
	files["d7/e/f"] = "other"
	a, b := entries(t, blobs, old, fresh)
	blobs.reads = 0
	d, err := Compare(t.Context(), blobs, a, b)
	if err != nil || len(d.Changes) != 1 || d.Changes[0].Subject != "d7/e/f" {
		t.Fatalf("%v, %v", d, err)
	}
	if blobs.reads > 12 {
		t.Errorf("%d blobs were read", blobs.reads)
	}
}

// TestCompareBounds: of very many changes the first are listed, the rest is counted.
func TestCompareBounds(t *testing.T) {
	blobs := newBlobs()
	files := map[string]string{}
	for i := range 3 * maxChanges {
		files[fmt.Sprintf("f%d", i)] = "x"
	}
	a, b := entries(t, blobs, work{target: "//a"}, work{target: "//a", files: files})
	d, err := Compare(t.Context(), blobs, a, b)
	if err != nil || len(d.Changes) != maxChanges || d.More != 2*maxChanges {
		t.Errorf("%d changes, %d more, %v", len(d.Changes), d.More, err)
	}
}

// TestCompareAfterEviction: what the store has forgotten is told, and what the entries say themselves is still compared.
func TestCompareAfterEviction(t *testing.T) {
	blobs := newBlobs()
	base := work{target: "//a", args: []string{"-O2"}, env: map[string]string{"PATH": "/bin"}, files: map[string]string{"a": "1"}}
	fresh := base
	fresh.args, fresh.files = []string{"-O0"}, map[string]string{"a": "2"}
	a, b := entries(t, blobs, base, fresh)
	for _, evict := range []func(){
		func() { evictOne(t, blobs, a.Command) },
		func() { evictOne(t, blobs, a.Action) },
		func() { evictOne(t, blobs, a.InputRoot) },
	} {
		evict()
		d, err := Compare(t.Context(), blobs, a, b)
		if err != nil {
			t.Fatal(err)
		}
		got := lines(d)
		if !strings.Contains(got, "command  changed") || strings.Contains(got, "environment") || !strings.Contains(got, "input ") || len(d.Unknown) == 0 {
			t.Errorf("%s\nunknown %v", got, d.Unknown)
		}
	}
	a.Command = "" // as of a hit, whose action never came
	if d, err := Compare(t.Context(), blobs, a, b); err != nil || len(d.Changes) > 0 || len(d.Unknown) != 1 {
		t.Errorf("%v, %v", d, err)
	}
}

func evictOne(t *testing.T, blobs *fakeBlobs, name string) {
	t.Helper()
	d, err := digest.ParseString(digest.SHA256, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, there := blobs.content[d]; !there {
		t.Fatalf("%s is not there", name)
	}
	delete(blobs.content, d)
}

// FuzzCompare: directories that a client made up end in a difference, whatever they are.
func FuzzCompare(f *testing.F) {
	f.Add([]byte("\n\x05\n\x01a\x12\x00"), []byte(""))
	f.Fuzz(func(t *testing.T, old, fresh []byte) {
		blobs := newBlobs()
		name := func(data []byte) string {
			d := digest.SHA256.Of(data)
			blobs.content[d] = data
			return d.String()
		}
		entry := func(data []byte) *journalv1.Entry {
			return &journalv1.Entry{Function: digest.SHA256.String(), Action: name(data), Command: name(data), InputRoot: name(data)}
		}
		d, err := Compare(t.Context(), blobs, entry(old), entry(fresh))
		if err != nil || len(d.Changes) > maxChanges {
			t.Errorf("%d changes, %v", len(d.Changes), err)
		}
	})
}
