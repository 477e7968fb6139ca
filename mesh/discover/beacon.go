package discover

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// ErrBeacon is wrapped by every error about bytes that are no beacon.
var ErrBeacon = errors.New("malformed beacon")

// Bounds of what a beacon carries.
const (
	MaxLabel  = 32
	MaxName   = 48 // of the mesh, in bytes
	maxBeacon = 4 + 2 + 32 + 2*2 + 1 + MaxLabel + 1 + MaxName + 256
)

// beaconMagic begins every beacon; its last byte is the version.
var beaconMagic = []byte{'b', 'm', 's', 1}

// flagAsk asks members to answer.
const flagAsk = 1

// Self is what a node tells everybody.
type Self struct {
	Label  string // of the mesh: a hash of its root
	Mesh   string // its public name
	Peer   peer.ID
	Gossip uint16 // port
	Hello  uint16 // port for members and joiners
}

// Find is a node somebody told of. Nothing in it is proven.
type Find struct {
	Self
	Addr netip.Addr
	By   string // "beacon" or "mDNS"
	At   time.Time
}

// beacon is a Self on the wire: magic, flags, reserved, peer, ports, label and name each after a length byte.
// What later versions add stands behind.
type beacon struct {
	Self
	ask bool
}

func (b beacon) encode() []byte {
	out := append(make([]byte, 0, maxBeacon), beaconMagic...)
	var flags byte
	if b.ask {
		flags |= flagAsk
	}
	out = append(out, flags, 0)
	out = append(out, b.Peer[:]...)
	out = binary.BigEndian.AppendUint16(out, b.Gossip)
	out = binary.BigEndian.AppendUint16(out, b.Hello)
	for _, text := range []string{b.Label, Clean(b.Mesh)} {
		out = append(out, byte(len(text)))
		out = append(out, text...)
	}
	return out
}

// decodeBeacon reads a beacon. Errors wrap ErrBeacon.
func decodeBeacon(data []byte) (beacon, error) {
	const fixed = 4 + 2 + 32 + 2*2
	var b beacon
	if len(data) > maxBeacon || len(data) < fixed || !bytes.HasPrefix(data, beaconMagic) {
		return b, fmt.Errorf("%d bytes: %w", len(data), ErrBeacon)
	}
	b.ask = data[4]&flagAsk != 0
	b.Peer = peer.ID(data[6:38])
	b.Gossip, b.Hello = binary.BigEndian.Uint16(data[38:]), binary.BigEndian.Uint16(data[40:])
	rest := data[fixed:]
	text := func(most int) (string, error) {
		if len(rest) == 0 || int(rest[0]) > most || int(rest[0]) > len(rest)-1 {
			return "", fmt.Errorf("text cut short: %w", ErrBeacon)
		}
		s := string(rest[1 : 1+rest[0]])
		rest = rest[1+len(s):]
		return s, nil
	}
	var err error
	if b.Label, err = text(MaxLabel); err != nil {
		return b, err
	}
	name, err := text(MaxName)
	if err != nil {
		return b, err
	}
	b.Mesh = Clean(name)
	if b.Peer.IsZero() || b.Label == "" || b.Gossip == 0 {
		return b, fmt.Errorf("tells of nobody: %w", ErrBeacon)
	}
	return b, nil
}

// Clean makes the name of a mesh fit to be shown: no control characters, at most MaxName bytes of UTF-8.
func Clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
	for len(name) > MaxName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	return name
}
