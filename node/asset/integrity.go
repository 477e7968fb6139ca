package asset

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// integrity is the value of the qualifier checksum.sri: content that has one of these checksums is
// right. Source: W3C Subresource Integrity, section 3.1; qualifiers.md of the protocol.
type integrity []checksum

type checksum struct {
	algorithm string
	sum       string // raw bytes
}

// newHash makes the hash of an algorithm, nil for one that is not known.
func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case "sha256":
		return sha256.New()
	case "sha384":
		return sha512.New384()
	case "sha512":
		return sha512.New()
	}
	return nil
}

// parseIntegrity reads checksums separated by white space. Algorithms that are not known are passed
// over, as the specification says, but one that is known has to be there.
func parseIntegrity(s string) (integrity, error) {
	const most = 16
	var list integrity
	for i, word := range strings.Fields(s) {
		if i == most {
			return nil, fmt.Errorf("there are more than %d checksums", most)
		}
		word, _, _ = strings.Cut(word, "?") // options have no meaning
		algorithm, encoded, found := strings.Cut(word, "-")
		if !found {
			return nil, fmt.Errorf("%.100q is not a checksum", word)
		}
		h := newHash(algorithm)
		if h == nil {
			continue
		}
		sum, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(sum) != h.Size() {
			return nil, fmt.Errorf("%.200q is not a %s checksum", word, algorithm)
		}
		list = append(list, checksum{algorithm, string(sum)})
	}
	if len(list) == 0 {
		return nil, errors.New("there is no sha256, sha384 or sha512 checksum")
	}
	return list, nil
}

// verifier computes what an integrity needs of the bytes written to it.
type verifier struct {
	want   integrity
	hashes map[string]hash.Hash
	io.Writer
}

func (list integrity) verifier() *verifier {
	v := &verifier{want: list, hashes: map[string]hash.Hash{}}
	var writers []io.Writer
	for _, c := range list {
		if v.hashes[c.algorithm] == nil {
			h := newHash(c.algorithm)
			v.hashes[c.algorithm] = h
			writers = append(writers, h)
		}
	}
	v.Writer = io.MultiWriter(writers...)
	return v
}

// satisfied reports whether the bytes written have one of the checksums. Without any, all bytes do.
func (v *verifier) satisfied() bool {
	for _, c := range v.want {
		if string(v.hashes[c.algorithm].Sum(nil)) == c.sum {
			return true
		}
	}
	return len(v.want) == 0
}
