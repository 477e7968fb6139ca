package journal

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// Sizes of a log.
const (
	header    = 8       // length and checksum before each payload
	maxRecord = 1 << 20 // longest payload
	segments  = 8       // a full log has so many
	suffix    = ".log"
)

var (
	errDamaged = errors.New("the record is damaged")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// log is the segments on disk. Not safe for concurrent use.
type log struct {
	dir      string
	maxBytes int64
	segments []segment // the oldest first; the last one is appended to
	file     *os.File  // the last segment, for appending; nil before the first record
}

// segment is one file.
type segment struct {
	number uint64
	bytes  int64
}

// openLog opens or makes the log in dir and calls known for every record there is, in order.
func openLog(dir string, maxBytes int64, known func(position, *journalv1.Record)) (*log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	found, err := list(dir)
	if err != nil {
		return nil, err
	}
	l := &log{dir: dir, maxBytes: max(maxBytes, segments<<10), segments: found}
	for i := range l.segments {
		s := &l.segments[i]
		data, err := os.ReadFile(l.path(s.number))
		if err != nil {
			return nil, err
		}
		s.bytes = int64(len(data)) // what is damaged takes room, too
		good := scan(data, func(offset int64, payload int64, r *journalv1.Record) {
			p := positionOf(r)
			p.segment, p.offset, p.size = s.number, offset, payload
			known(p, r)
		})
		if i == len(l.segments)-1 && good < s.bytes { // cut off by the end of an earlier process
			if err := os.Truncate(l.path(s.number), good); err != nil {
				return nil, err
			}
			s.bytes = good
		}
	}
	return l, nil
}

// list gives the segments in dir, the oldest first; their sizes are not known.
func list(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []segment
	for _, e := range entries {
		if number, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), suffix), 16, 64); err == nil && strings.HasSuffix(e.Name(), suffix) {
			all = append(all, segment{number: number})
		}
	}
	slices.SortFunc(all, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	return all, nil
}

// Read calls f with every entry of the journal in dir, in order, while another process may write it. Remarks are left out.
func Read(dir string, f func(*journalv1.Entry)) error {
	found, err := list(dir)
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, s := range found {
		data, err := os.ReadFile(segmentFile(dir, s.number))
		if errors.Is(err, fs.ErrNotExist) {
			continue // there were too many meanwhile
		}
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		scan(data, func(_, _ int64, r *journalv1.Record) {
			if r.Entry != nil {
				f(r.Entry)
			}
		})
	}
	return nil
}

// scan calls f for each record of a segment up to the first damaged one, and gives where that is.
func scan(data []byte, f func(offset, payload int64, r *journalv1.Record)) int64 {
	at := 0
	for len(data)-at >= header {
		size := int(binary.LittleEndian.Uint32(data[at:]))
		if size > maxRecord || size > len(data)-at-header {
			break
		}
		r, err := decode(data[at:][:header+size])
		if err != nil {
			break
		}
		f(int64(at), int64(size), r)
		at += header + size
	}
	return int64(at)
}

// decode reads one whole record.
func decode(data []byte) (*journalv1.Record, error) {
	if len(data) < header || int(binary.LittleEndian.Uint32(data)) != len(data)-header {
		return nil, errDamaged
	}
	payload := data[header:]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return nil, errDamaged
	}
	r := &journalv1.Record{}
	if err := proto.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if (r.Entry == nil) == (r.Remark == nil) {
		return nil, errDamaged
	}
	return r, nil
}

// encode appends one record to data.
func encode(data []byte, r *journalv1.Record) ([]byte, error) {
	start := len(data)
	data = append(data, make([]byte, header)...)
	data, err := proto.MarshalOptions{}.MarshalAppend(data, r)
	size := len(data) - start - header
	if err == nil && size > maxRecord {
		err = fmt.Errorf("a record of %d bytes is too large", size)
	}
	if err != nil {
		return data[:start], err
	}
	binary.LittleEndian.PutUint32(data[start:], uint32(size))
	binary.LittleEndian.PutUint32(data[start+4:], crc32.Checksum(data[start+header:], castagnoli))
	return data, nil
}

func (l *log) path(number uint64) string { return segmentFile(l.dir, number) }

// segmentFile is where a log in dir keeps a segment.
func segmentFile(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", number, suffix))
}

// append numbers records from next, writes them with one call and gives where they are. After an error none is there.
func (l *log) append(records []*journalv1.Record, next uint64) ([]position, error) {
	var data []byte
	var added []position
	var errs []error
	for _, r := range records {
		if r.Entry != nil {
			r.Entry.Sequence = next
		} else {
			r.Remark.Sequence = next
		}
		offset := len(data)
		var err error
		if data, err = encode(data, r); err != nil {
			errs = append(errs, err)
			continue
		}
		next++
		p := positionOf(r)
		p.offset, p.size = int64(offset), int64(len(data)-offset-header)
		added = append(added, p)
	}
	if len(added) == 0 {
		return nil, errors.Join(errs...)
	}
	if err := l.ready(added[0].sequence); err != nil {
		return nil, err
	}
	s := &l.segments[len(l.segments)-1]
	if _, err := l.file.Write(data); err != nil {
		l.undo(s.bytes)
		return nil, err
	}
	for i := range added {
		added[i].segment = s.number
		added[i].offset += s.bytes
	}
	s.bytes += int64(len(data))
	return added, errors.Join(errs...)
}

// ready opens the last segment, or a new one named for its first record when that is full or there is none.
func (l *log) ready(first uint64) error {
	full := len(l.segments) == 0 || l.segments[len(l.segments)-1].bytes >= l.maxBytes/segments
	if l.file != nil && !full {
		return nil
	}
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
	number := first
	if n := len(l.segments); n > 0 {
		number = max(first, l.segments[n-1].number+1) // the last one may be full without a single record: see undo
		if !full {
			number = l.segments[n-1].number
		}
	}
	f, err := os.OpenFile(l.path(number), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.file = f
	if full {
		l.segments = append(l.segments, segment{number: number})
	}
	return nil
}

// undo takes back what an append left half written; where that fails, the next one begins a new segment.
func (l *log) undo(to int64) {
	if l.file.Truncate(to) != nil {
		l.segments[len(l.segments)-1].bytes = l.maxBytes
	}
	l.file.Close()
	l.file = nil
}

// trim removes the oldest segments while there are too many bytes, and those before oldest, but never the last. It gives
// the first segment that is left.
func (l *log) trim(oldest uint64) uint64 {
	var total int64
	for _, s := range l.segments {
		total += s.bytes
	}
	for len(l.segments) > 1 && (total > l.maxBytes || l.segments[0].number < oldest) {
		if err := os.Remove(l.path(l.segments[0].number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break // it is tried again with the next record
		}
		total -= l.segments[0].bytes
		l.segments = l.segments[1:]
	}
	if len(l.segments) == 0 {
		return 0
	}
	return l.segments[0].number
}

// read reads the record at p.
func (l *log) read(p position) (*journalv1.Record, error) {
	f, err := os.Open(l.path(p.segment))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, header+p.size)
	if _, err := f.ReadAt(data, p.offset); err != nil {
		return nil, err
	}
	return decode(data)
}

func (l *log) close() error {
	if l.file == nil {
		return nil
	}
	err := errors.Join(l.file.Sync(), l.file.Close())
	l.file = nil
	return err
}
