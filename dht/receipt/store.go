package receipt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/record"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// maxKept is how many receipts are kept about one action: one of each executor, and two when it
// contradicts itself.
const maxKept = 8

// maxEvidence is the disk evidence may take, in bytes.
const maxEvidence = 64 << 20

// Options shape a Store; zero values mean the defaults.
type Options struct {
	MaxBytes int64            // disk of the receipts. Default: 1 GiB
	Clock    func() time.Time // Default: time.Now
}

// Store is the receipts known here. Safe for concurrent use.
type Store struct {
	clock    func() time.Time
	receipts *record.Log
	evidence *record.Log

	mu          sync.Mutex // guards all below, and a key's record from reading to writing it
	quarantined map[cid.Key]struct{}
	revoked     map[peer.ID]time.Time // what these signed is not stored
}

// kept is a receipt and when it came here.
type kept struct {
	receipt  *Receipt
	received time.Time
}

// Open opens or makes the store in dir. Errors: record.ErrLocked while another process has it open.
func Open(dir string, o Options) (*Store, error) {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 30
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	// A segment must take the largest record.
	segment := max(2*maxKept*MaxSize, min(64<<20, o.MaxBytes/16))
	receipts, err := record.Open(filepath.Join(dir, "known"), record.Options{MaxBytes: max(o.MaxBytes, 4*segment), SegmentBytes: segment})
	if err != nil {
		return nil, fmt.Errorf("open receipts: %w", err)
	}
	evidence, err := record.Open(filepath.Join(dir, "evidence"), record.Options{MaxBytes: 4 * maxEvidence, SegmentBytes: maxEvidence})
	if err != nil {
		return nil, fmt.Errorf("open evidence: %w", errors.Join(err, receipts.Close()))
	}
	s := &Store{clock: o.Clock, receipts: receipts, evidence: evidence, quarantined: map[cid.Key]struct{}{}}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open evidence: %w", errors.Join(err, s.Close()))
	}
	return s, nil
}

// load learns what is quarantined.
func (s *Store) load() error {
	return walk(s.evidence, func(k cid.Key) error {
		s.quarantined[k] = struct{}{}
		return nil
	})
}

// walk calls f for every key in a log.
func walk(log *record.Log, f func(cid.Key) error) error {
	for cursor := uint32(0); ; {
		entries, next, err := log.Entries(cursor, 4096)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := f(cid.Key(e.Key[:cid.KeySize])); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Close makes everything durable and gives the directory back.
func (s *Store) Close() error { return errors.Join(s.receipts.Close(), s.evidence.Close()) }

// recordKey is a key's place in either log.
func recordKey(k cid.Key) (r record.Key) {
	copy(r[:], k[:])
	return r
}

// Put stores a receipt under the key of its action and root, beside those of other executors. It reports
// whether the receipts now disagree: then the action is quarantined. The caller has checked it. Errors: ErrUntrusted, when its
// executor was revoked meanwhile.
func (s *Store) Put(k cid.Key, r *Receipt) (disagree bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, is := s.revoked[r.Executor]; is {
		return false, fmt.Errorf("put receipt of action %s: %w: %s was revoked", r.Action.Short(), ErrUntrusted, r.Executor.Short())
	}
	all, err := s.read(k)
	if err != nil {
		return false, fmt.Errorf("put receipt of action %s: %w", r.Action.Short(), err)
	}
	for i, other := range all {
		if other.receipt.Executor == r.Executor && other.receipt.Agrees(r) {
			all = slices.Delete(all, i, i+1) // the newer one takes its place
			break
		}
	}
	for _, other := range all {
		disagree = disagree || !other.receipt.Agrees(r)
	}
	if all = append([]kept{{r, s.clock()}}, all...); len(all) > maxKept {
		all = all[:maxKept]
	}
	if err := put(s.receipts, k, all); err != nil {
		return disagree, fmt.Errorf("put receipt of action %s: %w", r.Action.Short(), err)
	}
	if !disagree {
		return false, nil
	}
	s.quarantined[k] = struct{}{}
	if err := put(s.evidence, k, all); err != nil {
		return true, fmt.Errorf("keep evidence about action %s: %w", r.Action.Short(), err)
	}
	return true, nil
}

// Get gives the receipts under each key, those that came last first.
func (s *Store) Get(keys []cid.Key) ([][]*Receipt, error) {
	all := make([][]*Receipt, len(keys))
	for i, k := range keys {
		some, err := s.read(k)
		if err != nil {
			return nil, fmt.Errorf("get receipts: %w", err)
		}
		for _, r := range some {
			all[i] = append(all[i], r.receipt)
		}
	}
	return all, nil
}

// Raw gives the exact bytes of the receipts under each key, without reading them.
func (s *Store) Raw(keys []cid.Key) ([][][]byte, error) {
	places := make([]record.Key, len(keys))
	for i, k := range keys {
		places[i] = recordKey(k)
	}
	values, err := s.receipts.Get(places)
	if err != nil && !errors.Is(err, record.ErrCorrupt) { // damaged ones are gone
		return nil, fmt.Errorf("get receipts: %w", err)
	}
	all := make([][][]byte, len(keys))
	for i, v := range values {
		items, ok := decode(v.Data)
		if !ok {
			continue
		}
		for _, item := range items {
			all[i] = append(all[i], item.raw)
		}
	}
	return all, nil
}

// Quarantined reports whether receipts about the key's action disagree.
func (s *Store) Quarantined(k cid.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.quarantined[k]
	return is
}

// Keys calls f for every key there is a receipt under.
func (s *Store) Keys(f func(cid.Key) error) error { return walk(s.receipts, f) }

// Evidence is the receipts about one action that disagree.
type Evidence struct {
	Key      cid.Key
	Receipts []*Receipt
}

// Evidence lists what is quarantined, ordered by key.
func (s *Store) Evidence() ([]Evidence, error) {
	s.mu.Lock()
	keys := make([]cid.Key, 0, len(s.quarantined))
	for k := range s.quarantined {
		keys = append(keys, k)
	}
	s.mu.Unlock()
	slices.SortFunc(keys, func(a, b cid.Key) int { return slices.Compare(a[:], b[:]) })
	var all []Evidence
	for _, k := range keys {
		some, err := get(s.evidence, k)
		if err != nil {
			return nil, fmt.Errorf("get evidence: %w", err)
		}
		e := Evidence{Key: k}
		for _, r := range some {
			e.Receipts = append(e.Receipts, r.receipt)
		}
		all = append(all, e)
	}
	return all, nil
}

// Absolve ends the quarantine of an action and drops all receipts about it.
func (s *Store) Absolve(k cid.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.quarantined, k)
	_, a := s.receipts.Delete(recordKey(k))
	_, b := s.evidence.Delete(recordKey(k))
	return errors.Join(a, b)
}

// Revoke has nothing of some peers be stored any more, and drops what they signed that came here at or after a time, each its
// own. take is called with what such a receipt says before it is dropped, so that who is killed in between finds it again; it
// must not call the Store. gone are the keys that have no receipt of another peer. Evidence stays. A later call takes the
// place of this one.
func (s *Store) Revoke(since map[peer.ID]time.Time, take func(Statement) error) (gone []cid.Key, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = maps.Clone(since)
	if len(since) == 0 {
		return nil, nil
	}
	err = walk(s.receipts, func(k cid.Key) error {
		alone, err := s.revoke(k, take)
		if alone {
			gone = append(gone, k)
		}
		return err
	})
	if err != nil {
		return gone, fmt.Errorf("revoke receipts: %w", err)
	}
	return gone, nil
}

// revoke is Revoke for one key; alone: nobody who is not revoked has signed anything under it. s.mu is held.
func (s *Store) revoke(k cid.Key, take func(Statement) error) (alone bool, err error) {
	raw, err := s.Raw([]cid.Key{k})
	if err != nil {
		return false, err
	}
	isRevoked := func(id peer.ID) bool { _, is := s.revoked[id]; return is }
	if !slices.ContainsFunc(raw[0], func(one []byte) bool {
		about, err := Peek(one)
		return err == nil && isRevoked(about.Executor)
	}) {
		return false, nil // most are not: no signature is verified for them
	}
	all, err := s.read(k)
	if err != nil {
		return false, err
	}
	var left []kept
	alone = true
	for _, one := range all {
		id := one.receipt.Executor
		if !isRevoked(id) || one.received.Before(s.revoked[id]) {
			left, alone = append(left, one), alone && isRevoked(id)
			continue
		}
		if err := take(one.receipt.Statement); err != nil {
			return false, err
		}
	}
	switch {
	case len(left) == 0:
		_, err = s.receipts.Delete(recordKey(k))
	case len(left) < len(all):
		err = put(s.receipts, k, left)
	}
	return alone, err
}

// read gives what is stored under a key; what cannot be read any more is left out.
func (s *Store) read(k cid.Key) ([]kept, error) { return get(s.receipts, k) }

func get(log *record.Log, k cid.Key) ([]kept, error) {
	values, err := log.Get([]record.Key{recordKey(k)})
	if err != nil && !errors.Is(err, record.ErrCorrupt) {
		return nil, err
	}
	items, _ := decode(values[0].Data)
	var all []kept
	for _, item := range items {
		if r, err := Parse(item.raw); err == nil { // the signature again: a disk is not trusted either
			all = append(all, kept{r, item.received})
		}
	}
	return all, nil
}

// A record is a version byte, 1, and then for each receipt: when it came, 8 bytes, nanoseconds since
// 1970; its length, 4 bytes; its bytes. Numbers are big-endian.
const recordVersion = 1

func put(log *record.Log, k cid.Key, all []kept) error {
	b := []byte{recordVersion}
	for _, r := range all {
		b = binary.BigEndian.AppendUint64(b, uint64(r.received.UnixNano()))
		b = binary.BigEndian.AppendUint32(b, uint32(len(r.receipt.raw)))
		b = append(b, r.receipt.raw...)
	}
	return log.Put([]record.Item{{Key: recordKey(k), Value: b}})
}

// rawItem is a receipt in a record.
type rawItem struct {
	received time.Time
	raw      []byte
}

// decode reads a record; false for one that is malformed.
func decode(b []byte) ([]rawItem, bool) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, false
	}
	var items []rawItem
	for b = b[1:]; len(b) > 0; {
		if len(b) < 12 {
			return nil, false
		}
		at, n := binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:]))
		if b = b[12:]; n > uint64(len(b)) {
			return nil, false
		}
		items = append(items, rawItem{time.Unix(0, int64(at)), b[:n:n]})
		b = b[n:]
	}
	return items, true
}
