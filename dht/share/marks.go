package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// Reason is why a blob is private.
type Reason uint8

// Reasons, the stronger ones last.
const (
	Shared     Reason = iota // it is not
	ByInstance               // it came by an instance that is not shared, until it comes by one that is
	ByName                   // an action had to do with it that has files with private names
)

// maxMarks is how many private blobs are remembered; beyond it nothing at all is shared, which is safe.
const maxMarks = 1 << 22

// errUnmarked means that blobs were to be hidden where the rule hides nothing.
var errUnmarked = errors.New("nothing is private here")

// marks is a set of digests with reasons, kept in a log of its own: what was set survives kill -9. A mark comes before its
// blob, so a blob is never without; loss of power may cost the marks of the last seconds, as it may cost the blobs.
type marks struct {
	log        *record.Log
	generation atomic.Uint64 // grows when marks have been set: what was found out before counts no more
	broken     atomic.Bool   // a mark could not be set, or there are too many: everything is private
}

// marked reports whether there may be marks in dir.
func marked(dir string) bool { return exists(dir) || exists(signOf(dir)) }

// signOf is the file that says that marks in dir were lost, until all blobs have marks.
func signOf(dir string) string { return dir + ".damaged" }

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// Held tells what the store has.
type Held interface {
	Contains(d digest.Digest) bool
	// Large lists the blobs of at least so many bytes.
	Large(bytes int64) ([]digest.Digest, error)
}

// openMarks opens the marks in dir. Where some were lost nobody knows whose they were: all blobs of the store get one, which says
// why, and damaged is true.
func openMarks(dir string, store Held, why Reason) (m *marks, damaged bool, err error) {
	sign := signOf(dir)
	log, err := openLog(dir, sign)
	if err != nil {
		return nil, false, fmt.Errorf("open marks of private blobs: %w", err)
	}
	m = &marks{log: log}
	if err = m.prune(store); err == nil {
		damaged, err = m.mend(store, sign, why)
	}
	if err != nil {
		return nil, false, fmt.Errorf("open marks of private blobs: %w", errors.Join(err, log.Close()))
	}
	m.broken.Store(log.Stat().Entries > maxMarks)
	return m, damaged, nil
}

// openLog opens the log in dir, a new one with a sign where it is damaged as a whole. It keeps what it has: a mark is not to
// go for want of disk space.
func openLog(dir, sign string) (*record.Log, error) {
	o := record.Options{SegmentBytes: 4 << 20, Keeps: true}
	log, err := record.Open(dir, o)
	if !errors.Is(err, record.ErrCorrupt) {
		return log, err
	}
	if err := errors.Join(os.WriteFile(sign, nil, 0o600), os.RemoveAll(dir)); err != nil {
		return nil, err
	}
	return record.Open(dir, o)
}

// mend marks every blob if marks were lost, and reports whether they were.
func (m *marks) mend(store Held, sign string, why Reason) (damaged bool, err error) {
	stat := m.log.Stat()
	if stat.Lost == 0 && stat.Corrupt == 0 && !exists(sign) {
		return false, nil
	}
	all, err := store.Large(0)
	err = errors.Join(err, os.WriteFile(sign, nil, 0o600))
	if err == nil {
		err = m.set(all, why)
	}
	if err == nil {
		err = m.log.Sync()
	}
	if err == nil {
		err = os.Remove(sign)
	}
	return true, err
}

// prune drops the marks by instance of blobs that are not present any more. Those by name stay: the blob may come again as an
// input of something else.
func (m *marks) prune(store Held) error {
	var gone []record.Key
	for cursor := uint32(0); ; {
		entries, next, err := m.log.Entries(cursor, 4096)
		if err != nil {
			return err
		}
		var keys []record.Key
		for _, e := range entries {
			if e.Size == markBytes {
				keys = append(keys, e.Key)
			}
		}
		values, err := m.log.Get(keys)
		if err != nil && !errors.Is(err, record.ErrCorrupt) {
			return err
		}
		for i, v := range values {
			if v.Found && !store.Contains(markedBlob(keys[i], v.Data)) {
				gone = append(gone, keys[i])
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for _, k := range gone {
		if _, err := m.log.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// markBytes is the length of a value that says ByInstance: the size of the blob, of which the key has the rest. ByName has one
// byte more, so that the index of the log tells the two apart without reading.
const markBytes = 8

// markedBlob is the blob that a mark by instance is of.
func markedBlob(key record.Key, value []byte) digest.Digest {
	return cas.DigestOf(key, int64(binary.BigEndian.Uint64(value)))
}

// reason tells why a blob is private, if it is.
func (m *marks) reason(d digest.Digest) Reason {
	if m.broken.Load() {
		return ByName
	}
	return m.mark(d)
}

// mark is the mark that a blob has.
func (m *marks) mark(d digest.Digest) Reason {
	info := m.log.Peek(cas.KeyOf(d))
	switch {
	case !info.Found:
		return Shared
	case info.Size > markBytes:
		return ByName
	}
	return ByInstance
}

// set marks blobs, except where they have a stronger mark.
func (m *marks) set(ds []digest.Digest, why Reason) error {
	items := make([]record.Item, 0, len(ds))
	for _, d := range ds {
		if !d.IsEmpty() && m.mark(d) < why {
			value := binary.BigEndian.AppendUint64(make([]byte, 0, markBytes+1), uint64(d.Size()))
			if why == ByName {
				value = append(value, 0)
			}
			items = append(items, record.Item{Key: cas.KeyOf(d), Value: value})
		}
	}
	if len(items) == 0 {
		return nil
	}
	err := m.log.Put(items)
	if err != nil || m.log.Stat().Entries > maxMarks {
		m.broken.Store(true)
	}
	m.generation.Add(1) // last: else a verdict from before could pass for a new one
	if err != nil {
		return fmt.Errorf("mark %d private blobs: %w", len(items), err)
	}
	return nil
}

// clear takes the marks of blobs away, up to a reason. A mark that the disk keeps stays, which is safe.
func (m *marks) clear(ds []digest.Digest, upTo Reason) {
	if m.log.Stat().Entries == 0 {
		return
	}
	for _, d := range slices.DeleteFunc(slices.Clone(ds), digest.Digest.IsEmpty) {
		if why := m.mark(d); why != Shared && why <= upTo {
			_, _ = m.log.Delete(cas.KeyOf(d))
		}
	}
}
