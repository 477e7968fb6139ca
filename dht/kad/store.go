package kad

import (
	"context"
	"errors"
	"strings"
	"sync"

	datastore "github.com/ipfs/go-datastore"
	query "github.com/ipfs/go-datastore/query"
)

// maxRecords bounds the provider records kept of others.
const maxRecords = 1 << 20

// errFull is what the DHT is told then; it logs nothing and keeps what it has.
var errFull = errors.New("no more provider records are kept")

// store keeps provider records by the key they are about, in memory: what the DHT asks for most, all records of one key, is
// one look-up, and not a walk over all. Safe for concurrent use.
type store struct {
	mu     sync.RWMutex // guards everything below
	groups map[string]map[datastore.Key][]byte
	count  int
}

var _ datastore.Batching = (*store)(nil)

func newStore() *store { return &store{groups: map[string]map[datastore.Key][]byte{}} }

// group is the part of a name that all records of one key share.
func group(k datastore.Key) string {
	name := k.String()
	return name[:max(0, strings.LastIndexByte(name, '/'))]
}

// Put implements datastore.Write.
func (s *store) Put(_ context.Context, k datastore.Key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group(k)]
	if _, known := g[k]; !known {
		if s.count >= maxRecords {
			return errFull
		}
		s.count++
	}
	if g == nil {
		g = map[datastore.Key][]byte{}
		s.groups[group(k)] = g
	}
	g[k] = value
	return nil
}

// Delete implements datastore.Write.
func (s *store) Delete(_ context.Context, k datastore.Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[group(k)]
	if _, known := g[k]; !known {
		return nil
	}
	s.count--
	if delete(g, k); len(g) == 0 {
		delete(s.groups, group(k))
	}
	return nil
}

// Get implements datastore.Read.
func (s *store) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	value, known := s.groups[group(k)][k]
	if !known {
		return nil, datastore.ErrNotFound
	}
	return value, nil
}

// Has implements datastore.Read.
func (s *store) Has(ctx context.Context, k datastore.Key) (bool, error) {
	_, err := s.Get(ctx, k)
	return err == nil, nil
}

// GetSize implements datastore.Read.
func (s *store) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	value, err := s.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(value), nil
}

// Query implements datastore.Read.
func (s *store) Query(_ context.Context, q query.Query) (query.Results, error) {
	var entries []query.Entry
	s.mu.RLock()
	defer s.mu.RUnlock()
	take := func(g map[datastore.Key][]byte) {
		for k, v := range g {
			entries = append(entries, query.Entry{Key: k.String(), Value: v, Size: len(v)})
		}
	}
	if g, one := s.groups[strings.TrimSuffix(q.Prefix, "/")]; one {
		take(g)
	} else {
		for name, g := range s.groups {
			if strings.HasPrefix(name+"/", q.Prefix) {
				take(g)
			}
		}
	}
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, entries)), nil
}

// Batch implements datastore.Batching.
func (s *store) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(s), nil
}

// Sync implements datastore.Write: nothing outlives the process.
func (s *store) Sync(context.Context, datastore.Key) error { return nil }

// Close implements io.Closer.
func (s *store) Close() error { return nil }
