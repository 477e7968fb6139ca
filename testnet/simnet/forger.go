package simnet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"net/netip"

	"github.com/hashicorp/memberlist"

	"github.com/buildmesh/buildmesh/mesh/gossip"
	"github.com/buildmesh/buildmesh/mesh/roster"
)

// Kinds of memberlist's messages that claim something of a node (its net.go).
const (
	suspectMessage = 3
	aliveMessage   = 4
	deadMessage    = 5
)

// Forger writes memberlist's packets by hand. It holds the key and the label of an office and no certificate of it: what
// somebody has who was turned out a moment ago, or a member that lies.
type Forger struct {
	Net   *Network
	From  netip.AddrPort
	Label string
	Key   gossip.Key
}

// Forger makes one in this office.
func (o *Office) Forger() Forger {
	return Forger{Net: o.Net, From: netip.AddrPortFrom(o.Net.Address(), GossipPort), Label: o.Label, Key: o.Key}
}

// Name is what gossip calls this start of a member.
func Name(m roster.Member) string { return m.ID.String() + "." + m.Boot }

// Send seals a message and sends it.
func (f Forger) Send(to netip.AddrPort, message []byte) error {
	block, err := aes.NewCipher(f.Key[:])
	if err != nil {
		return err
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	packet := append([]byte{1}, make([]byte, seal.NonceSize())...) // 1: the version without padding
	if _, err := rand.Read(packet[1:]); err != nil {
		return err
	}
	packet = seal.Seal(packet, packet[1:], message, []byte(f.Label))
	if packet, err = memberlist.AddLabelHeaderToPacket(packet, f.Label); err != nil {
		return err
	}
	f.Net.Inject(f.From, to, packet)
	return nil
}

// Gone claims that a node is suspect or dead.
func Gone(kind byte, name string, incarnation uint32) []byte {
	m := []byte{kind, 0x83}
	m = appendNumber(appendText(m, "Incarnation"), incarnation)
	m = appendText(appendText(m, "Node"), name)
	return appendText(appendText(m, "From"), name)
}

// Alive claims that a node is at an address, with some card.
func Alive(name string, incarnation uint32, at netip.AddrPort, meta []byte) []byte {
	m := []byte{aliveMessage, 0x86}
	m = appendNumber(appendText(m, "Incarnation"), incarnation)
	m = appendText(appendText(m, "Node"), name)
	m = appendText(appendText(m, "Addr"), string(at.Addr().AsSlice()))
	m = appendNumber(appendText(m, "Port"), uint32(at.Port()))
	m = appendText(appendText(m, "Meta"), string(meta))
	return appendText(appendText(m, "Vsn"), string([]byte{1, 5, 2, 0, 0, 0}))
}

// appendText and appendNumber write msgpack's raw 16 and uint 32.
func appendText(m []byte, text string) []byte {
	m = binary.BigEndian.AppendUint16(append(m, 0xda), uint16(len(text)))
	return append(m, text...)
}

func appendNumber(m []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(m, 0xce), n)
}
