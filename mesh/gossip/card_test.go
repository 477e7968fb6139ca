package gossip

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// testKey signs with a key made from one byte.
type testKey byte

func (k testKey) private() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(k)}, ed25519.SeedSize))
}
func (k testKey) ID() peer.ID                { return peer.ID(k.private().Public().(ed25519.PublicKey)) }
func (k testKey) Sign(message []byte) []byte { return ed25519.Sign(k.private(), message) }

var here = netip.MustParseAddrPort("10.0.0.1:7946")

func sealed(t testing.TB, c card) []byte {
	t.Helper()
	data, err := c.seal(testKey(1), "label", "name", here)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCard(t *testing.T) {
	want := card{leaving: true, epoch: 300, held: 7, used: 6, control: 8982, bulk: 65535, cert: []byte("certificate")}
	got, err := parseCard(sealed(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if err := got.verify(testKey(1).ID(), "label", "name", here); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another peer":    got.verify(testKey(2).ID(), "label", "name", here),
		"another mesh":    got.verify(testKey(1).ID(), "labe", "lname", here),
		"another name":    got.verify(testKey(1).ID(), "label", "name2", here),
		"another address": got.verify(testKey(1).ID(), "label", "name", netip.MustParseAddrPort("10.0.0.2:7946")),
		"another port":    got.verify(testKey(1).ID(), "label", "name", netip.MustParseAddrPort("10.0.0.1:7947")),
	} {
		if !errors.Is(err, ErrCard) {
			t.Errorf("%s: the card holds for it: %v", name, err)
		}
	}
	got.signed, got.signature = nil, nil
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got  %+v\nwant %+v", *got, want)
	}
}

// TestCardOfLaterVersion has more before its signature.
func TestCardOfLaterVersion(t *testing.T) {
	body := append(sealed(t, card{epoch: 1, cert: []byte("c")})[:0:0], cardVersion, 0x80, 1, 1, 1, 0, 1, 0, 2, 1, 'c')
	body = append(body, "something new"...)
	data := append(body, testKey(1).Sign(cardMessage(body, "label", "name", here))...)
	c, err := parseCard(data)
	if err != nil || c.bulk != 2 || string(c.cert) != "c" || c.leaving {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := c.verify(testKey(1).ID(), "label", "name", here); err != nil {
		t.Error(err)
	}
}

func TestCardBounds(t *testing.T) {
	largest := card{epoch: 1<<64 - 1, held: 1<<64 - 1, used: 1<<64 - 1, cert: make([]byte, maxCertificate)}
	if n := len(sealed(t, largest)); n > maxCard {
		t.Errorf("the largest card has %d bytes, memberlist takes %d", n, maxCard)
	}
	largest.cert = make([]byte, maxCertificate+1)
	if _, err := largest.seal(testKey(1), "label", "name", here); !errors.Is(err, ErrCard) {
		t.Errorf("a certificate too large: %v", err)
	}
	good := sealed(t, card{epoch: 300, cert: []byte("certificate")})
	for n := range good {
		if c, err := parseCard(good[:n]); err == nil && c.verify(testKey(1).ID(), "label", "name", here) == nil {
			t.Errorf("cut at %d of %d it holds", n, len(good))
		}
	}
	if _, err := parseCard(append([]byte{2}, good[1:]...)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another version: %v", err)
	}
	if _, err := parseCard(make([]byte, maxCard+1)); !errors.Is(err, ErrCard) {
		t.Errorf("too large: %v", err)
	}
}

func TestName(t *testing.T) {
	id, boot := testKey(1).ID(), newBoot()
	if gotID, gotBoot, err := parseName(nameOf(id, boot)); err != nil || gotID != id || gotBoot != boot {
		t.Errorf("%v %s %v", gotID, gotBoot, err)
	}
	for _, bad := range []string{"", ".", id.String(), id.String() + ".", id.String() + ".zz", "x." + boot, nameOf(id, boot) + "00", strings.Repeat("1", 4096)} {
		if _, _, err := parseName(bad); err == nil {
			t.Errorf("%.60q is a name", bad)
		}
	}
	if newBoot() == boot {
		t.Error("two starts are alike")
	}
}

func FuzzCard(f *testing.F) {
	f.Add(sealed(f, card{epoch: 300, held: 2, used: 1, control: 1, bulk: 2, cert: []byte("certificate")}))
	f.Add(bytes.Repeat([]byte{cardVersion, 0xff}, 60))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCard(data)
		if err != nil {
			if !errors.Is(err, ErrCard) {
				t.Errorf("%v is no ErrCard", err)
			}
			return
		}
		if len(c.cert) == 0 || len(c.signature) != signatureSize {
			t.Errorf("%+v", c)
		}
		_ = c.verify(testKey(1).ID(), "label", "name", here)
	})
}
