package cas

import "github.com/buildmesh/buildmesh/dht/digest"

// Large lists the blobs of at least so many bytes, without renewing a lease. What comes or goes meanwhile may be missed or
// listed. Errors: ErrClosed.
func (s *Store) Large(bytes int64) ([]digest.Digest, error) {
	var large []digest.Digest
	for cursor := uint32(0); ; {
		entries, next, err := s.log.Entries(cursor, 1024)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Size >= bytes {
				large = append(large, DigestOf(e.Key, e.Size))
			}
		}
		if next == 0 {
			return large, nil
		}
		cursor = next
	}
}
