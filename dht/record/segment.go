package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"strconv"
	"strings"
)

// A frame is a value in a segment: magic, crc over all that follows, length, key, padding to
// frameHeader bytes, value, padding to a multiple of 8. It says by itself what it is.
const (
	frameMagic  = 0x31726d62 // "bmr1"
	frameHeader = 48
	frameAlign  = 8
)

// frameSize is the space in bytes a value of size bytes takes in a segment.
func frameSize(size int64) int64 {
	return (frameHeader + size + frameAlign - 1) &^ (frameAlign - 1)
}

// appendFrame encodes a value.
func appendFrame(b []byte, key *Key, value []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, frameMagic)
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	b = append(b, key[:]...)
	b = append(b, 0, 0, 0)
	b = append(b, value...)
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+8:], castagnoli))
	for len(b)%frameAlign != 0 {
		b = append(b, 0)
	}
	return b
}

// decodeFrame reads the frame that b starts with. Errors: ErrCorrupt. The value is part of b.
func decodeFrame(b []byte) (key Key, value []byte, err error) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != frameMagic {
		return key, nil, fmt.Errorf("no frame here: %w", ErrCorrupt)
	}
	length := int64(binary.LittleEndian.Uint32(b[8:]))
	if length > int64(len(b))-frameHeader {
		return key, nil, fmt.Errorf("frame of %d bytes is cut off: %w", length, ErrCorrupt)
	}
	end := frameHeader + length
	if crc32.Checksum(b[8:end], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return key, nil, fmt.Errorf("frame checksum does not match: %w", ErrCorrupt)
	}
	return Key(b[12:]), b[frameHeader:end:end], nil
}

// segment is a file of frames. Its fields are guarded by the log's mutex; the file is used without.
type segment struct {
	id      uint32
	path    string
	file    File
	end     int64 // where the next frame goes
	live    int64 // bytes of frames the index points to
	users   int   // reads and writes going on; the file stays open for them
	writers int   // of those the writes, whose frames are not in the index yet
	dirty   bool  // written since the last sync
	moved   bool  // compaction has copied frames away
	dropped bool  // no longer part of the log; closed with the last user
}

func (s *segment) dead() int64 { return s.end - s.live }

func segmentPath(dir string, id uint32) string {
	return filepath.Join(dir, fmt.Sprintf("segment-%08x", id))
}

// segmentID reads the number out of a file name.
func segmentID(name string) (uint32, bool) {
	digits, ok := strings.CutPrefix(name, "segment-")
	if !ok || len(digits) != 8 {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 16, 32)
	return uint32(id), err == nil
}
