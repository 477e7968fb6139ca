package cas

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/record"
)

// reconcile compares the files under blobs/ with the entries after a loss of power, when the file
// system may remember a rename or a removal that the journal does not, or the reverse. It reads
// names only. It is the one walk over files, and no ordinary start makes it.
func (s *Store) reconcile() error {
	seen := map[record.Key]bool{}
	root := filepath.Join(s.dir, "blobs")
	shards, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		dir := filepath.Join(root, shard.Name())
		names, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			key, isCopy, ok := keyOfFile(name.Name())
			info := s.log.Peek(key)
			if ok && info.External && (!isCopy || info.Doubled) {
				seen[key] = seen[key] || !isCopy
				continue
			}
			if err := os.Remove(filepath.Join(dir, name.Name())); err != nil {
				return err
			}
		}
	}
	return s.forgetUnseen(seen)
}

// forgetUnseen deletes the entries of large blobs whose file is not there.
func (s *Store) forgetUnseen(seen map[record.Key]bool) error {
	for cursor := uint32(0); ; {
		entries, next, err := s.log.Entries(cursor, 1024)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.External && !seen[e.Key] {
				if _, err := s.log.Delete(e.Key); err != nil {
					return err
				}
			}
		}
		if next == 0 {
			return nil
		}
		cursor = next
	}
}

// keyOfFile is the reverse of files.path for a file's name.
func keyOfFile(name string) (key record.Key, isCopy, ok bool) {
	name, isCopy = strings.CutSuffix(name, copySuffix)
	for _, fn := range digest.Functions() {
		text, found := strings.CutPrefix(name, fn.String()+"-")
		if !found {
			continue
		}
		hash, err := hex.DecodeString(text)
		if err != nil || len(hash) != digest.HashSize {
			return key, isCopy, false
		}
		key[0] = byte(fn)
		copy(key[1:], hash)
		return key, isCopy, true
	}
	return key, isCopy, false
}
