package peer

import (
	"errors"
	"strings"
)

// alphabet58 is base58btc: the digits and letters that are not mistaken for each other.
const alphabet58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// longest58 bounds the text decode58 looks at; its time grows with the square of the length.
const longest58 = 128

// encode58 writes bytes as a number in base 58; every leading zero byte is a leading '1'.
func encode58(data []byte) string {
	zeros := 0
	for zeros < len(data) && data[zeros] == 0 {
		zeros++
	}
	var digits []byte // little-endian, base 58
	for _, b := range data[zeros:] {
		carry := int(b)
		for i, d := range digits {
			carry += int(d) << 8
			digits[i] = byte(carry % 58)
			carry /= 58
		}
		for ; carry > 0; carry /= 58 {
			digits = append(digits, byte(carry%58))
		}
	}
	out := []byte(strings.Repeat("1", zeros))
	for i := len(digits) - 1; i >= 0; i-- {
		out = append(out, alphabet58[digits[i]])
	}
	return string(out)
}

// decode58 is the inverse of encode58.
func decode58(s string) ([]byte, error) {
	if len(s) > longest58 {
		return nil, errors.New("too long")
	}
	zeros := len(s) - len(strings.TrimLeft(s, "1"))
	var number []byte // little-endian, base 256
	for _, c := range []byte(s[zeros:]) {
		carry := strings.IndexByte(alphabet58, c)
		if carry < 0 {
			return nil, errors.New("not base58")
		}
		for i, b := range number {
			carry += int(b) * 58
			number[i] = byte(carry)
			carry >>= 8
		}
		for ; carry > 0; carry >>= 8 {
			number = append(number, byte(carry))
		}
	}
	out := make([]byte, zeros, zeros+len(number))
	for i := len(number) - 1; i >= 0; i-- {
		out = append(out, number[i])
	}
	return out, nil
}
