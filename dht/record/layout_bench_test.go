package record

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// layout is one way to keep small values on disk.
type layout interface {
	put(items []Item) error
	get(keys []Key) error
	close() error
}

// BenchmarkLayout compares ways to keep values of 1 to 16 KiB, written and read in batches of 100,
// without fsync: what decided for segments. Figures are per value.
func BenchmarkLayout(b *testing.B) {
	layouts := []struct {
		name string
		open func(dir string) (layout, error)
	}{{"segment", openSegments}, {"file", openFiles}, {"bbolt", openBolt}}
	for _, size := range []int{1 << 10, 16 << 10} {
		for _, kind := range layouts {
			b.Run(fmt.Sprintf("%s/%dKiB", kind.name, size>>10), func(b *testing.B) { benchLayout(b, kind.open, size) })
		}
	}
}

func benchLayout(b *testing.B, open func(string) (layout, error), size int) {
	const batch = 100
	l, err := open(b.TempDir())
	must(b, err)
	defer l.close()
	items, keys := make([]Item, batch), make([]Key, batch)
	next := 0
	for b.Loop() {
		for i := range items {
			items[i] = Item{benchKey(next), testValue(next, size)}
			next++
		}
		must(b, l.put(items))
	}
	write := b.Elapsed().Nanoseconds()
	reading := time.Now()
	for start := 0; start < next; start += batch {
		for i := range keys {
			keys[i] = benchKey(start + i)
		}
		must(b, l.get(keys))
	}
	b.ReportMetric(float64(write)/float64(next)/1e3, "us/put")
	b.ReportMetric(float64(time.Since(reading).Nanoseconds())/float64(next)/1e3, "us/get")
}

// segments is this package.
type segments struct{ log *Log }

func openSegments(dir string) (layout, error) {
	l, err := Open(dir, Options{SyncEvery: -1})
	return segments{l}, err
}

func (s segments) put(items []Item) error { return s.log.Put(items) }
func (s segments) close() error           { return s.log.Close() }
func (s segments) get(keys []Key) error {
	_, err := s.log.Get(keys)
	return err
}

// fileEach keeps a file per value, written aside and renamed, in 256 directories.
type fileEach struct{ dir string }

func openFiles(dir string) (layout, error) {
	for i := range 256 {
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, err
		}
	}
	return fileEach{dir}, nil
}

func (f fileEach) path(key Key) string {
	name := hex.EncodeToString(key[:])
	return filepath.Join(f.dir, name[:2], name)
}

func (f fileEach) put(items []Item) error {
	for _, item := range items {
		path := f.path(item.Key)
		if err := os.WriteFile(path+".new", item.Value, 0o600); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func (f fileEach) get(keys []Key) error {
	for _, key := range keys {
		if _, err := os.ReadFile(f.path(key)); err != nil {
			return err
		}
	}
	return nil
}

func (f fileEach) close() error { return nil }

// bolt keeps values in a B+ tree in one file.
type bolt struct{ db *bbolt.DB }

func openBolt(dir string) (layout, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	return bolt{db}, err
}

func (t bolt) put(items []Item) error {
	return t.db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists([]byte("values"))
		if err != nil {
			return err
		}
		for _, item := range items {
			if err := bucket.Put(item.Key[:], item.Value); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t bolt) get(keys []Key) error {
	return t.db.View(func(tx *bbolt.Tx) error {
		for _, key := range keys {
			value := tx.Bucket([]byte("values")).Get(key[:])
			if got := append([]byte(nil), value...); len(got) == 0 {
				return fmt.Errorf("value is gone")
			}
		}
		return nil
	})
}

func (t bolt) close() error { return t.db.Close() }
