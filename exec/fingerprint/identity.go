package fingerprint

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

var errIrregular = errors.New("no regular file")

// known is what the cache remembers of a file.
type known struct {
	Stamp string // changes whenever the content may have
	Value string
}

// cache remembers what files hash to. It only saves time: a damaged one is as good as none.
type cache struct {
	old, fresh map[string]known
}

func loadCache(file string) *cache {
	c := &cache{old: map[string]known{}, fresh: map[string]known{}}
	if file == "" {
		return c
	}
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &c.old) != nil {
		c.old = map[string]known{}
	}
	return c
}

// save writes what this computation used, if it differs from what was loaded.
func (c *cache) save(file string) error {
	same := len(c.old) == len(c.fresh)
	for name, k := range c.fresh {
		same = same && c.old[name] == k
	}
	if file == "" || same {
		return nil
	}
	data, err := json.Marshal(c.fresh)
	if err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	temporary := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return fmt.Errorf("save cache: %w", err)
	}
	return os.Rename(temporary, file)
}

// identify names the content of a file: its build id, if that is wanted and there is one, else the hash of its bytes.
func (s *survey) identify(path string, byBuildID bool) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s: %w", path, errIrregular)
	}
	name, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	stamp := fmt.Sprintf("%d %d %s %v", info.Size(), info.ModTime().UnixNano(), inode(info), byBuildID)
	if k, ok := s.cache.old[name]; ok && k.Stamp == stamp {
		s.cache.fresh[name] = k
		return k.Value, nil
	}
	value, err := contentOf(path, byBuildID)
	if err != nil {
		return "", err
	}
	s.cache.fresh[name] = known{Stamp: stamp, Value: value}
	return value, nil
}

func contentOf(path string, byBuildID bool) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if byBuildID {
		if id := buildID(f); id != "" {
			return "build id " + id, nil
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256 " + hex.EncodeToString(h.Sum(nil)), nil
}

// noteLimit bounds the note section, in bytes; a build id takes 36.
const noteLimit = 4096

// buildID gives the id that the linker computed from the content (note NT_GNU_BUILD_ID), or nothing.
func buildID(r io.ReaderAt) string {
	file, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	section := file.Section(".note.gnu.build-id")
	if section == nil || section.Size > noteLimit {
		return ""
	}
	note, err := section.Data()
	if err != nil {
		return ""
	}
	return parseNote(note, file.ByteOrder)
}

// parseNote reads one ELF note: sizes of name and description, type, name padded to 4 bytes, description.
func parseNote(note []byte, order binary.ByteOrder) string {
	const head, gnuBuildID = 12, 3
	if len(note) < head {
		return ""
	}
	nameSize, descSize, kind := uint64(order.Uint32(note)), uint64(order.Uint32(note[4:])), order.Uint32(note[8:])
	start := head + (nameSize+3)/4*4
	if kind != gnuBuildID || descSize < 8 || start+descSize > uint64(len(note)) || string(note[head:head+min(4, nameSize)]) != "GNU\x00" {
		return ""
	}
	return hex.EncodeToString(note[start : start+descSize])
}
