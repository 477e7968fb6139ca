package cas_test

import (
	"context"
	"encoding/binary"
	"io"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
	"github.com/buildmesh/buildmesh/dht/digest"
)

func openBench(b *testing.B) *cas.Store {
	b.Helper()
	s, err := cas.Open(b.TempDir(), cas.Options{MaxBytes: 20 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// fresh makes n blobs of one size that differ by serial.
func fresh(serial uint64, n, size int) []cas.Blob {
	blobs := make([]cas.Blob, n)
	for i := range blobs {
		data := castest.Content(1, size)
		binary.LittleEndian.PutUint64(data, serial*uint64(n)+uint64(i))
		blobs[i] = cas.Blob{Digest: digest.SHA256.Of(data), Data: data}
	}
	return blobs
}

func digests(blobs []cas.Blob) []digest.Digest {
	ds := make([]digest.Digest, len(blobs))
	for i, b := range blobs {
		ds[i] = b.Digest
	}
	return ds
}

func BenchmarkPutBatch(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(map[int]string{1 << 10: "100x1KiB", 16 << 10: "100x16KiB"}[size], func(b *testing.B) {
			s, serial := openBench(b), uint64(0)
			b.SetBytes(int64(100 * size))
			for b.Loop() {
				b.StopTimer()
				blobs := fresh(serial, 100, size)
				serial++
				b.StartTimer()
				if errs := s.PutBatch(context.Background(), blobs); errs != nil {
					b.Fatal(errs)
				}
			}
		})
	}
}

func BenchmarkGetBatch(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(map[int]string{1 << 10: "100x1KiB", 16 << 10: "100x16KiB"}[size], func(b *testing.B) {
			s := openBench(b)
			var batches [][]digest.Digest
			for i := range 50 {
				blobs := fresh(uint64(i), 100, size)
				if errs := s.PutBatch(context.Background(), blobs); errs != nil {
					b.Fatal(errs)
				}
				batches = append(batches, digests(blobs))
			}
			b.SetBytes(int64(100 * size))
			for i := 0; b.Loop(); i++ {
				if _, err := s.GetBatch(context.Background(), batches[i%len(batches)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkMissing10000(b *testing.B) {
	s := openBench(b)
	var ds []digest.Digest
	for i := range 100 {
		blobs := fresh(uint64(i), 100, 64)
		if i%2 == 0 {
			if errs := s.PutBatch(context.Background(), blobs); errs != nil {
				b.Fatal(errs)
			}
		}
		ds = append(ds, digests(blobs)...)
	}
	for b.Loop() {
		if missing, err := s.Missing(context.Background(), ds); err != nil || len(missing) != 5000 {
			b.Fatal(len(missing), err)
		}
	}
}

func BenchmarkWrite256MiB(b *testing.B) {
	for _, fn := range digest.Functions() {
		b.Run(fn.String(), func(b *testing.B) {
			s := openBench(b)
			data := castest.Content(1, 256<<20)
			b.SetBytes(int64(len(data)))
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				binary.LittleEndian.PutUint64(data, uint64(i))
				d := fn.Of(data)
				b.StartTimer()
				w, err := s.NewWriter(context.Background(), d)
				if err != nil {
					b.Fatal(err)
				}
				for at := 0; at < len(data); at += 1 << 20 {
					if _, err := w.Write(data[at : at+1<<20]); err != nil {
						b.Fatal(err)
					}
				}
				if err := w.Commit(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead256MiB(b *testing.B) {
	s := openBench(b)
	blob := castest.Make(1, 256<<20)
	if err := s.Put(context.Background(), blob.Digest, blob.Data); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(256 << 20)
	for b.Loop() {
		r, err := s.NewReader(context.Background(), blob.Digest)
		if err != nil {
			b.Fatal(err)
		}
		for at := int64(0); at < r.Size(); at += int64(len(buf)) {
			if _, err := r.ReadAt(buf, at); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
		r.Close()
	}
}
