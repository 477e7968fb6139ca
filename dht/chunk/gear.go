package chunk

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
)

// gearTables makes the table of the rolling hash, and the same shifted by one bit. GEAR[i] is the
// first half of the MD5 of 64 bytes that are all i, as in the paper's published program (the
// protocol's comment abbreviates that to MD5(byte(i))); a seed is mixed into every entry.
func gearTables(seed uint32) (gear, shifted *[256]uint64) {
	gear, shifted = new([256]uint64), new([256]uint64)
	for i := range gear {
		sum := md5.Sum(bytes.Repeat([]byte{byte(i)}, 64))
		gear[i] = binary.BigEndian.Uint64(sum[:]) ^ uint64(seed)
		shifted[i] = gear[i] << 1
	}
	return gear, shifted
}

// masks by the logarithm of a size: a cut is where all bits of the mask are 0 in the hash. From the
// paper's published program; the bits are spread so that the hash's window is as wide as possible.
var masks = [...]uint64{
	8:  0x0000001800035300, // 256 B
	9:  0x0000019000353000,
	10: 0x0000590003530000, // 1 KiB
	11: 0x0000d90003530000,
	12: 0x0000d90103530000,
	13: 0x0000d90303530000,
	14: 0x0000d90313530000,
	15: 0x0000d90f03530000,
	16: 0x0000d90303537000,
	17: 0x0000d90703537000,
	18: 0x0000d90707537000,
	19: 0x0000d91707537000, // 512 KiB
	20: 0x0000d91747537000,
	21: 0x0000d91767537000,
	22: 0x0000d93767537000,
	23: 0x0000d93777537000,
	24: 0x0000d93777577000,
	25: 0x0000db3777577000, // 32 MiB
}
