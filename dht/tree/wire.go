package tree

import "google.golang.org/protobuf/encoding/protowire"

// Directory messages are read from the wire format without the generated code: names and hashes stay
// parts of one string per message instead of several objects per node.

// Tags of the fields that are read: number and wire type. A known number with another wire type is an
// unknown field, as in every protobuf implementation.
const (
	tag1Bytes  = 1<<3 | uint64(protowire.BytesType)
	tag2Bytes  = 2<<3 | uint64(protowire.BytesType)
	tag3Bytes  = 3<<3 | uint64(protowire.BytesType)
	tag4Bytes  = 4<<3 | uint64(protowire.BytesType)
	tag5Bytes  = 5<<3 | uint64(protowire.BytesType)
	tag6Bytes  = 6<<3 | uint64(protowire.BytesType)
	tag2Varint = 2<<3 | uint64(protowire.VarintType)
	tag4Varint = 4<<3 | uint64(protowire.VarintType)
)

// field is one field of a message.
type field struct {
	tag    uint64
	number uint64 // of a varint
	bytes  string // of a length-delimited field, part of the message
}

// next takes the first field off a message. Groups, which proto3 does not have, are malformed.
func next(message string) (f field, rest string, ok bool) {
	tag, n := varint(message)
	if n == 0 || tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
		return field{}, "", false
	}
	f.tag, message = tag, message[n:]
	size := 0
	switch protowire.Type(tag & 7) {
	case protowire.VarintType:
		f.number, size = varint(message)
		if size == 0 {
			return field{}, "", false
		}
	case protowire.Fixed32Type:
		size = 4
	case protowire.Fixed64Type:
		size = 8
	case protowire.BytesType:
		length, n := varint(message)
		if n == 0 || length > uint64(len(message)-n) {
			return field{}, "", false
		}
		size = n + int(length)
		f.bytes = message[n:size]
	default:
		return field{}, "", false
	}
	if size > len(message) {
		return field{}, "", false
	}
	return f, message[size:], true
}

// varint reads a base 128 number and gives its length in bytes, 0 when it is malformed.
func varint(s string) (v uint64, n int) {
	for i := 0; i < len(s) && i < 10; i++ {
		b := s[i]
		if i == 9 && b > 1 {
			return 0, 0
		}
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
