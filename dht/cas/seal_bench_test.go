package cas

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// BenchmarkSeal opens and links a large blob, and does the same without a look at the seal in the same run: open/unsealed and
// link/unsealed are what finding changed files costs. Each figure is the median of the rounds' own. Run it:
//
//	go test ./dht/cas -run '^$' -bench Seal -benchtime 20x
func BenchmarkSeal(b *testing.B) {
	s, err := Open(b.TempDir(), Options{MaxBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 256<<10)
	d := digest.SHA256.Of(data)
	if err := s.Put(b.Context(), d, data); err != nil {
		b.Fatal(err)
	}
	source, link := s.files.path(KeyOf(d)), filepath.Join(b.TempDir(), "link")
	open := func() error {
		r, err := s.NewReader(b.Context(), d)
		if err != nil {
			return err
		}
		return r.Close()
	}
	// openUnsealed and linkUnsealed are NewReader and Materialize but for unspoilt.
	openUnsealed := func() error {
		if _, err := s.lookup(d); err != nil {
			return err
		}
		pin, _ := s.Pin([]digest.Digest{d})
		file, err := os.Open(source)
		if err != nil {
			return err
		}
		return NewReader(pinnedFile{file, pin}, d.Size()).Close()
	}
	materialize := func() error { return s.Materialize(b.Context(), d, link, false) }
	linkUnsealed := func() error {
		if _, err := s.lookup(d); err != nil {
			return err
		}
		pin, _ := s.Pin([]digest.Digest{d})
		defer pin.Release()
		return os.Link(source, link)
	}
	unlink := func() error { return os.Remove(link) }
	figures := make(map[string][]float64)
	for b.Loop() {
		opened, linked := each(b, open, nil), each(b, materialize, unlink)
		figures["open-us"] = append(figures["open-us"], opened.Seconds()*1e6)
		figures["open/unsealed"] = append(figures["open/unsealed"], opened.Seconds()/each(b, openUnsealed, nil).Seconds())
		figures["link-us"] = append(figures["link-us"], linked.Seconds()*1e6)
		figures["link/unsealed"] = append(figures["link/unsealed"], linked.Seconds()/each(b, linkUnsealed, unlink).Seconds())
	}
	for unit, all := range figures {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
}

// each gives the mean time of do; undo follows each time and is not counted.
func each(b *testing.B, do, undo func() error) time.Duration {
	b.Helper()
	const times = 2000
	var took time.Duration
	for range times {
		began := time.Now()
		err := do()
		took += time.Since(began)
		if err == nil && undo != nil {
			err = undo()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	return took / times
}
