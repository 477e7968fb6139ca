package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// kind says what a journal line tells.
type kind uint8

const (
	kindHeader kind = 1 + iota // first line of a file: magic and version
	kindKept                   // entry of a checkpoint: synced before
	kindPut                    // a value was put at segment, offset
	kindMoved                  // compaction moved a value; its use did not change
	kindAdopt                  // an external value exists
	kindIntent                 // a file for key may come to exist
	kindRemove                 // the value is no longer there; an external one's file may still be
	kindGone                   // the files of key are removed
	kindSynced                 // what lines before byte size tell is durable
	kindOpened                 // a process opened the log; key starts with the boot id
	kindClosed                 // the log was closed and everything synced
)

// lineSize is the length of a journal line in bytes. All lines have it, so that a damaged one costs
// only itself.
const lineSize = 56

// journalReserve is the space in bytes kept allocated beyond the journal's end for removals, which
// must be possible on a full disk; journalStep is how much is allocated at once.
const (
	journalReserve = 256 << 10
	journalStep    = 1 << 20
)

var (
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
	journalMagic = Key{'b', 'm', 'j', 'o', 'u', 'r', 'n', 'a', 'l', 1}
)

// line is one statement of the journal.
type line struct {
	kind    kind
	flags   uint8
	key     Key
	segment uint32
	offset  uint32
	size    int64
}

// append encodes the line: crc, kind, flags, key, padding, segment, offset, size; little endian.
func (n *line) append(b []byte) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(n.kind), n.flags)
	b = append(b, n.key[:]...)
	b = append(b, 0)
	b = binary.LittleEndian.AppendUint32(b, n.segment)
	b = binary.LittleEndian.AppendUint32(b, n.offset)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.size))
	binary.LittleEndian.PutUint32(b[start:], crc32.Checksum(b[start+4:], castagnoli))
	return b
}

// decode reads a line of lineSize bytes and reports whether it is whole and makes sense.
func (n *line) decode(b []byte) bool {
	if len(b) < lineSize || crc32.Checksum(b[4:lineSize], castagnoli) != binary.LittleEndian.Uint32(b) {
		return false
	}
	n.kind, n.flags = kind(b[4]), b[5]&(flagExternal|flagDoubled)
	n.key = Key(b[6:])
	n.segment = binary.LittleEndian.Uint32(b[40:])
	n.offset = binary.LittleEndian.Uint32(b[44:])
	n.size = int64(binary.LittleEndian.Uint64(b[48:]))
	return n.kind >= kindHeader && n.kind <= kindClosed && n.size >= 0
}

// journal is the file that says what is stored. Appends go by write without buffering: a line that
// was acknowledged is in the kernel and survives the process. Not safe for concurrent use.
type journal struct {
	file     File
	end      int64 // where the next line goes
	reserved int64 // up to where the disk has promised space
}

// allocator is a File that can have disk space promised without growing.
type allocator interface{ Fd() uintptr }

// append writes whole lines. A failed append leaves nothing that counts. Unless urgent it keeps
// journalReserve bytes in hand, which only urgent appends may use.
func (j *journal) append(lines []byte, urgent bool) error {
	if !urgent {
		if err := j.reserve(j.end + int64(len(lines)) + journalReserve); err != nil {
			return fmt.Errorf("extend journal: %w", err)
		}
	}
	if _, err := j.file.WriteAt(lines, j.end); err != nil {
		j.file.Truncate(j.end) // what stays is overwritten by the next append or not acknowledged
		j.reserved = 0
		return fmt.Errorf("append to journal: %w", err)
	}
	j.end += int64(len(lines))
	return nil
}

func (j *journal) reserve(end int64) error {
	a, ok := j.file.(allocator)
	if !ok || end <= j.reserved {
		return nil
	}
	if allocate(a.Fd(), j.end, end+journalStep-j.end) == nil {
		j.reserved = end + journalStep
		return nil
	}
	if err := allocate(a.Fd(), j.end, end-j.end); err != nil { // a full disk may still have this much
		return err
	}
	j.reserved = end
	return nil
}

// createJournal makes a new, empty journal file at path.
func createJournal(files Files, path string) (*journal, error) {
	f, err := files.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create journal: %w", err)
	}
	j := &journal{file: f}
	head := line{kind: kindHeader, key: journalMagic}
	if err := j.append(head.append(nil), false); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}
