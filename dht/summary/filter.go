package summary

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/FastFilter/xorfilter"
)

// A base, little-endian:
//
//	0   version         1 byte, 1
//	1   width           1 byte: bits of a fingerprint, 16 or 32
//	2   seed            8 bytes
//	10  segment length  4 bytes, a power of 2
//	14  segment count   4 bytes
//	18  fingerprints    width/8 bytes each, (segment count + 2) * segment length of them
//
// An exact one, for bridges:
//
//	0   version         1 byte, 1
//	1   width           1 byte: 64
//	2   fingerprints    8 bytes each, ascending: of the keys themselves
const (
	version     = 1
	headerSize  = 18
	exactHeader = 2

	// Bits of a fingerprint.
	narrow = 16
	wide   = 32
	exact  = 64
)

// errBase is wrapped by every error about a base that is none.
var errBase = errors.New("malformed filter")

// filter is a decoded base: one of the widths, or none for nothing.
type filter struct {
	narrow *xorfilter.BinaryFuse[uint16]
	wide   *xorfilter.BinaryFuse[uint32]
	exact  []uint64 // ascending
}

// contains reports whether a fingerprint is in the set, or seems to be.
func (f *filter) contains(fingerprint uint64) bool {
	switch {
	case f.wide != nil:
		return f.wide.Contains(fingerprint)
	case f.narrow != nil:
		return f.narrow.Contains(fingerprint)
	}
	_, found := slices.BinarySearch(f.exact, fingerprint)
	return found
}

// encodeExact makes the exact base of distinct fingerprints, which it sorts; none for none.
func encodeExact(fingerprints []uint64) []byte {
	if len(fingerprints) == 0 {
		return nil
	}
	slices.Sort(fingerprints)
	b := make([]byte, 0, exactHeader+8*len(fingerprints))
	b = append(b, version, exact)
	for _, f := range fingerprints {
		b = binary.LittleEndian.AppendUint64(b, f)
	}
	return b
}

// decodeExact reads what follows the header of an exact base. Errors: errBase.
func decodeExact(body []byte) (filter, error) {
	if len(body) == 0 || len(body)%8 != 0 {
		return filter{}, fmt.Errorf("%w: %d bytes of fingerprints", errBase, len(body))
	}
	all := make([]uint64, len(body)/8)
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(body[8*i:])
		if i > 0 && all[i] <= all[i-1] {
			return filter{}, fmt.Errorf("%w: fingerprint %d is out of order", errBase, i)
		}
	}
	return filter{exact: all}, nil
}

// encodeBase makes the base of distinct fingerprints, whose order it may change; none for none.
func encodeBase(width int, fingerprints []uint64) ([]byte, error) {
	if len(fingerprints) == 0 {
		return nil, nil
	}
	if width == narrow {
		f, err := xorfilter.NewBinaryFuse[uint16](fingerprints)
		if err != nil {
			return nil, fmt.Errorf("make filter: %w", err)
		}
		b := header(narrow, f.Seed, f.SegmentLength, f.SegmentCount, 2*len(f.Fingerprints))
		for _, v := range f.Fingerprints {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
		return b, nil
	}
	f, err := xorfilter.NewBinaryFuse[uint32](fingerprints)
	if err != nil {
		return nil, fmt.Errorf("make filter: %w", err)
	}
	b := header(wide, f.Seed, f.SegmentLength, f.SegmentCount, 4*len(f.Fingerprints))
	for _, v := range f.Fingerprints {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b, nil
}

func header(width byte, seed uint64, length, count uint32, size int) []byte {
	b := make([]byte, 0, headerSize+size)
	b = append(b, version, width)
	b = binary.LittleEndian.AppendUint64(b, seed)
	b = binary.LittleEndian.AppendUint32(b, length)
	return binary.LittleEndian.AppendUint32(b, count)
}

// maxSegment is the longest segment, in fingerprints: what the library makes.
const maxSegment = 1 << 18

// decodeBase checks a base that a peer sent, so that looking into it cannot fail. Errors: errBase.
func decodeBase(b []byte) (filter, error) {
	if len(b) == 0 {
		return filter{}, nil
	}
	if len(b) >= exactHeader && b[0] == version && b[1] == exact {
		return decodeExact(b[exactHeader:])
	}
	if len(b) < headerSize || b[0] != version {
		return filter{}, fmt.Errorf("%w: %d bytes", errBase, len(b))
	}
	seed := binary.LittleEndian.Uint64(b[2:])
	length, count := binary.LittleEndian.Uint32(b[10:]), binary.LittleEndian.Uint32(b[14:])
	body, width := b[headerSize:], int(b[1])
	switch {
	case width != narrow && width != wide:
		return filter{}, fmt.Errorf("%w: %d bits", errBase, width)
	case length == 0 || length > maxSegment || length&(length-1) != 0 || count == 0:
		return filter{}, fmt.Errorf("%w: %d segments of %d", errBase, count, length)
	case (uint64(count)+2)*uint64(length)*uint64(width/8) != uint64(len(body)):
		return filter{}, fmt.Errorf("%w: %d bytes for %d segments of %d", errBase, len(body), count, length)
	}
	if width == narrow {
		f := &xorfilter.BinaryFuse[uint16]{Seed: seed, SegmentLength: length, SegmentLengthMask: length - 1,
			SegmentCount: count, SegmentCountLength: count * length, Fingerprints: make([]uint16, len(body)/2)}
		for i := range f.Fingerprints {
			f.Fingerprints[i] = binary.LittleEndian.Uint16(body[2*i:])
		}
		return filter{narrow: f}, nil
	}
	f := &xorfilter.BinaryFuse[uint32]{Seed: seed, SegmentLength: length, SegmentLengthMask: length - 1,
		SegmentCount: count, SegmentCountLength: count * length, Fingerprints: make([]uint32, len(body)/4)}
	for i := range f.Fingerprints {
		f.Fingerprints[i] = binary.LittleEndian.Uint32(body[4*i:])
	}
	return filter{wide: f}, nil
}
