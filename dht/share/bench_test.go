package share_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/dht/share"
)

// BenchmarkUpload: what marks cost where blobs come in, in batches of 100 of 4 KiB and as single streams of 1 MiB. Each is stored
// in turn without marks, as a client of a shared instance does it where another one is not, and as a client of that one; "/plain"
// is how many times as long it takes as without.
func BenchmarkUpload(b *testing.B) {
	for name, c := range map[string]struct{ blobs, size int }{"batch": {100, 4 << 10}, "stream": {1, 1 << 20}} {
		b.Run(name, func(b *testing.B) {
			store, err := cas.Open(b.TempDir(), cas.Options{MaxBytes: 8 << 30})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			rule, err := share.ParseRule(nil, []string{"instance:held"})
			if err != nil {
				b.Fatal(err)
			}
			private, err := share.OpenPrivate(b.TempDir(), rule, store)
			if err != nil {
				b.Fatal(err)
			}
			defer private.Close()
			ways := []share.Whole{store, share.Revealing{Whole: store, Private: private}, share.Hiding{Whole: store, Private: private, Why: share.ByInstance}}
			var took [3]time.Duration
			seed := uint64(0)
			b.SetBytes(int64(c.blobs * c.size))
			for round := 0; b.Loop(); round++ {
				for turn := range ways { // in another order each time
					i := (turn + round) % len(ways)
					blobs := make([]cas.Blob, c.blobs)
					for j := range blobs {
						seed++
						data := blob(seed, c.size)
						blobs[j] = cas.Blob{Digest: digest.SHA256.Of(data), Data: data}
					}
					began := time.Now()
					upload(b, ways[i], blobs)
					took[i] += time.Since(began)
				}
			}
			b.ReportMetric(float64(took[1])/float64(took[0]), "shared/plain")
			b.ReportMetric(float64(took[2])/float64(took[0]), "private/plain")
			b.ReportMetric(float64(took[2]-took[0])/float64(b.N*c.blobs), "ns/mark")
		})
	}
}

// upload asks what is missing and sends it, a single blob as a stream.
func upload(b *testing.B, to share.Whole, blobs []cas.Blob) {
	ds := make([]digest.Digest, len(blobs))
	for i, one := range blobs {
		ds[i] = one.Digest
	}
	if _, err := to.Missing(b.Context(), ds); err != nil {
		b.Fatal(err)
	}
	if len(blobs) > 1 {
		if errs := to.PutBatch(b.Context(), blobs); errs != nil {
			b.Fatal(errs)
		}
		return
	}
	w, err := to.NewWriter(b.Context(), ds[0])
	if err == nil {
		_, err = w.Write(blobs[0].Data)
	}
	if err == nil {
		err = w.Commit()
	}
	if err != nil {
		b.Fatal(err)
	}
}

// all is a store that has every blob.
type all struct{}

func (all) Contains(digest.Digest) bool          { return true }
func (all) Large(int64) ([]digest.Digest, error) { return nil, nil }

// BenchmarkOpenPrivate opens 200,000 marks, which looks whether each blob is still there; "/log" is how many times as long that takes
// as opening their log. Run it:
//
//	go test ./dht/share -run '^$' -bench OpenPrivate -benchtime 5x
func BenchmarkOpenPrivate(b *testing.B) {
	rule, err := share.ParseRule(nil, []string{"instance:held"})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	private := func() *share.Private {
		p, err := share.OpenPrivate(dir, rule, all{})
		if err != nil {
			b.Fatal(err)
		}
		return p
	}
	p := private()
	for batch := range uint64(200) {
		ds := make([]digest.Digest, 1000)
		for i := range ds {
			ds[i] = digest.SHA256.Of(fmt.Append(nil, batch, i))
		}
		if err := p.Hide(ds, share.ByInstance); err != nil {
			b.Fatal(err)
		}
	}
	p.Close()
	var whole, bare time.Duration
	for b.Loop() {
		began := time.Now()
		p := private()
		whole += time.Since(began)
		p.Close()
		began = time.Now()
		log, err := record.Open(dir, record.Options{SegmentBytes: 4 << 20, Keeps: true})
		if err != nil {
			b.Fatal(err)
		}
		bare += time.Since(began)
		log.Close()
	}
	b.ReportMetric(whole.Seconds()/bare.Seconds(), "private/log")
}
