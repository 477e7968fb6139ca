package trust

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// The sentinels callers branch on. Each error of this package wraps exactly one of them.
var (
	ErrMalformed = errors.New("malformed")                // bytes or text that are no such value
	ErrForged    = errors.New("signature does not hold")  // signed by another key, or changed since
	ErrStranger  = errors.New("not of this mesh")         // its issuer is no steward; a newer charter may say otherwise
	ErrRevoked   = errors.New("revoked")                  // the root took the membership back
	ErrExpired   = errors.New("expired")                  // its time is over
	ErrNotYet    = errors.New("issued in the future")     // one of the two clocks is wrong by more than Skew
	ErrUsed      = errors.New("used as often as it may")  // an invite's uses are spent
	ErrOlder     = errors.New("older than what is known") // a charter of a lower epoch
)

// signer is a key pair that signs; peer.Identity and Root are.
type signer interface {
	ID() peer.ID
	Sign(message []byte) []byte
}

// Bounds of the fields.
const (
	MaxName = 32 // bytes of a peer's or a mesh's name
	MaxSite = 16 // bytes of a site's name
)

// format is the first byte of every encoding.
const format = 1

// purpose keeps a signature made for one kind of value from being one for another.
type purpose string

// message is what is signed for a body of this purpose in the mesh of root.
func (p purpose) message(root peer.ID, body []byte) []byte {
	out := make([]byte, 0, len(p)+1+len(root)+len(body))
	out = append(append(out, p...), 0)
	return append(append(out, root[:]...), body...)
}

// appendTime adds seconds since 1970; times before that are 1970.
func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(b, uint64(max(0, t.Unix())))
}

// appendText adds a text of at most 255 bytes.
func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// Clean makes s a name others accept: what cannot be printed goes, the rest is cut to most bytes.
func Clean(s string, most int) string {
	out := make([]byte, 0, min(len(s), most))
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if len(out)+utf8.RuneLen(r) > most {
			break
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// reader takes an encoding apart; after the first thing that does not fit, err is set and all is zero.
type reader struct {
	rest []byte
	err  error
}

// fail notes the first error.
func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %w", what, ErrMalformed)
	}
	r.rest = nil
}

// take is the next n bytes.
func (r *reader) take(n int, what string) []byte {
	if len(r.rest) < n || r.err != nil {
		r.fail(what)
		return make([]byte, n)
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

// format reads the first byte.
func (r *reader) format() {
	if r.take(1, "format")[0] != format {
		r.fail("format is not known")
	}
}

// id is the next peer id.
func (r *reader) id(what string) peer.ID { return peer.ID(r.take(len(peer.ID{}), what)) }

// number is the next number, in its shortest form and at most most.
func (r *reader) number(most uint64, what string) uint64 {
	n, size := binary.Uvarint(r.rest)
	if r.err != nil || size <= 0 || n > most || len(binary.AppendUvarint(nil, n)) != size {
		r.fail(what)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// time is the next time; it ends before the year 2242, so that no arithmetic with it overflows.
func (r *reader) time(what string) time.Time {
	return time.Unix(int64(r.number(math.MaxUint32*2, what)), 0).UTC()
}

// text is the next name.
func (r *reader) text(most int, what string) string {
	n := int(r.take(1, what)[0])
	if n > most {
		r.fail(what)
		return ""
	}
	s := string(r.take(n, what))
	if Clean(s, most) != s {
		r.fail(what)
	}
	return s
}

// signature is the end of the encoding.
func (r *reader) signature() (s [ed25519.SignatureSize]byte) {
	copy(s[:], r.take(len(s), "signature"))
	r.end()
	return s
}

// end makes sure that nothing follows.
func (r *reader) end() {
	if r.err == nil && len(r.rest) > 0 {
		r.fail("more bytes follow")
	}
}
