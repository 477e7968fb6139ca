package trust

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// noon is when everything in these tests happens.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// who makes an identity that is always the same for a letter.
func who(letter byte) *peer.Identity { return peer.FromSeed([32]byte{letter}) }

// founded is a mesh whose steward is 's'.
func founded(t *testing.T) (*Root, *Charter) {
	t.Helper()
	root := &Root{who('r')}
	return root, Found(root, "office", who('s').ID(), Secret{1}, noon)
}

// amended is the next charter.
func amended(t *testing.T, c *Charter, root *Root, a Amendment) *Charter {
	t.Helper()
	next, err := c.Amend(root, a, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Supersedes(c); err != nil {
		t.Error(err)
	}
	if back, err := ParseCharter(next.Marshal()); err != nil || !bytes.Equal(back.Marshal(), next.Marshal()) {
		t.Errorf("charter of epoch %d does not come back: %v", next.Epoch, err)
	}
	return next
}

func TestChain(t *testing.T) {
	root, charter := founded(t)
	steward, ana := who('s'), who('a')
	cert := Issue(Certificate{Peer: ana.ID(), Name: "ana", Site: "berlin", Roles: Executor}, root.ID(), steward, noon)
	parsed, err := ParseCertificate(cert.Marshal())
	if err != nil || *parsed != *cert {
		t.Fatalf("%+v came back as %+v, %v", cert, parsed, err)
	}
	if n := len(cert.Marshal()); n > 160 {
		t.Errorf("a certificate takes %d bytes", n)
	}
	if err := charter.Check(parsed, noon.Add(29*24*time.Hour)); err != nil {
		t.Error(err)
	}
	byRoot := Issue(Certificate{Peer: ana.ID()}, root.ID(), root, noon)
	if err := charter.Check(byRoot, noon); err != nil {
		t.Errorf("issued by the root: %v", err)
	}
	for name, test := range map[string]struct {
		cert *Certificate
		at   time.Time
		want error
	}{
		"stranger":         {Issue(Certificate{Peer: ana.ID()}, root.ID(), ana, noon), noon, ErrStranger},
		"another mesh's":   {Issue(Certificate{Peer: ana.ID()}, who('x').ID(), steward, noon), noon, ErrForged},
		"expired":          {cert, noon.Add(Lifetime), ErrExpired},
		"a clock behind":   {cert, noon.Add(-24 * time.Hour), nil},
		"a clock ahead":    {cert, cert.RenewAt().Add(24 * time.Hour), nil},
		"two weeks behind": {cert, noon.Add(-14 * 24 * time.Hour), ErrNotYet},
		"another's name":   {changed(*cert, func(c *Certificate) { c.Name = "bob" }), noon, ErrForged},
		"another's peer":   {changed(*cert, func(c *Certificate) { c.Peer = who('b').ID() }), noon, ErrForged},
		"longer":           {changed(*cert, func(c *Certificate) { c.Expires = c.Expires.Add(time.Hour) }), noon, ErrForged},
		"issuer is root":   {changed(*cert, func(c *Certificate) { c.Issuer = root.ID() }), noon, ErrForged},
	} {
		if err := charter.Check(test.cert, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	forever := changed(*cert, func(c *Certificate) {
		c.Expires = c.Issued.Add(10 * Lifetime)
		c.Signature = [64]byte(steward.Sign(certificatePurpose.message(root.ID(), c.body())))
	})
	if err := charter.Check(forever, noon); !errors.Is(err, ErrMalformed) {
		t.Errorf("signed for ten lifetimes: %v", err)
	}
}

// changed is a certificate after a change.
func changed(c Certificate, change func(*Certificate)) *Certificate {
	change(&c)
	return &c
}

func TestRevocation(t *testing.T) {
	root, charter := founded(t)
	ana, bob, steward := who('a').ID(), who('b').ID(), who('s')
	before := Issue(Certificate{Peer: ana}, root.ID(), steward, noon.Add(-time.Hour))
	after := Issue(Certificate{Peer: bob}, root.ID(), steward, noon)
	next := amended(t, charter, root, Amendment{Revoke: []Revocation{{ana, noon}}, Secret: Secret{2}})
	if err := next.Check(before, noon); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked member: %v", err)
	}
	if !next.Believes(ana, noon.Add(-time.Second)) || next.Believes(ana, noon) || !next.Believes(bob, noon) {
		t.Error("what ana signed is believed up to noon and not after; bob always")
	}
	if next.Secret == charter.Secret || next.Secret != (Secret{2}).Hash() {
		t.Error("the secret did not change")
	}
	// A steward goes: what it issued before stays, what it issues after does not count.
	gone := amended(t, charter, root, Amendment{Revoke: []Revocation{{steward.ID(), noon.Add(-time.Minute)}}, Appoint: []peer.ID{ana}})
	if err := gone.Check(before, noon); err != nil {
		t.Errorf("issued by a steward in its time: %v", err)
	}
	if err := gone.Check(after, noon); !errors.Is(err, ErrStranger) {
		t.Errorf("issued by a steward after its time: %v", err)
	}
	if gone.IsSteward(steward.ID()) || !gone.IsSteward(ana) {
		t.Error("ana is the steward now, and she alone")
	}
	// One that is not believed in anything is a steward up to now: who it admitted has done nothing.
	nothing := amended(t, charter, root, Amendment{Revoke: []Revocation{{steward.ID(), Always}}})
	if err := nothing.Check(before, noon); err != nil || nothing.IsSteward(steward.ID()) || nothing.Believes(steward.ID(), noon.Add(-time.Hour)) {
		t.Errorf("a steward that is not believed in anything, and whom it admitted: %v", err)
	}
	if _, err := gone.Amend(root, Amendment{Appoint: []peer.ID{steward.ID()}}, noon); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked peer was appointed: %v", err)
	}
	if _, err := charter.Amend(&Root{who('x')}, Amendment{}, noon); !errors.Is(err, ErrForged) {
		t.Errorf("amended with another key: %v", err)
	}
	if err := charter.Supersedes(next); !errors.Is(err, ErrOlder) {
		t.Errorf("an old charter took the place of a new one: %v", err)
	}
	other := Found(&Root{who('x')}, "office", ana, Secret{}, noon)
	if err := other.Supersedes(charter); !errors.Is(err, ErrStranger) {
		t.Errorf("another mesh's charter: %v", err)
	}
	data := next.Marshal()
	data[40] ^= 1
	if _, err := ParseCharter(data); !errors.Is(err, ErrForged) && !errors.Is(err, ErrMalformed) {
		t.Errorf("a changed charter: %v", err)
	}
}

func TestInvite(t *testing.T) {
	root, charter := founded(t)
	steward := who('s')
	code, err := NewCode(root.ID(), steward.ID(), []netip.AddrPort{netip.MustParseAddrPort("192.168.1.7:8982"), netip.MustParseAddrPort("[fe80::1]:1")})
	if err != nil {
		t.Fatal(err)
	}
	invite := NewInvite(Invite{Key: code.Invite().ID(), Uses: 2, Expires: noon.Add(time.Hour), Roles: Executor}, root.ID(), steward)
	parsed, err := ParseInvite(invite.Marshal())
	if err != nil || *parsed != *invite {
		t.Fatalf("%+v came back as %+v, %v", invite, parsed, err)
	}
	more := *invite
	more.Uses = 3
	for name, test := range map[string]struct {
		invite *Invite
		used   int
		at     time.Time
		want   error
	}{
		"new":          {invite, 0, noon, nil},
		"once more":    {invite, 1, noon, nil},
		"used up":      {invite, 2, noon, ErrUsed},
		"expired":      {invite, 0, noon.Add(time.Hour), ErrExpired},
		"changed":      {&more, 2, noon, ErrForged},
		"a stranger's": {NewInvite(*invite, root.ID(), who('x')), 0, noon, ErrStranger},
	} {
		if err := charter.CheckInvite(test.invite, test.used, test.at); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	ana, bob := who('a').ID(), who('b').ID()
	proof := JoinProof(code.Invite(), ana, steward.ID())
	if err := CheckJoin(invite.Key, ana, steward.ID(), proof); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another joiner": CheckJoin(invite.Key, bob, steward.ID(), proof), "another steward": CheckJoin(invite.Key, ana, bob, proof),
	} {
		if !errors.Is(err, ErrForged) {
			t.Errorf("a proof passed on to %s: %v", name, err)
		}
	}
}

func TestCode(t *testing.T) {
	seeds := []netip.AddrPort{netip.MustParseAddrPort("192.168.1.7:8982"), netip.MustParseAddrPort("[fd00::17]:8982")}
	code, err := NewCode(who('r').ID(), who('s').ID(), seeds)
	if err != nil {
		t.Fatal(err)
	}
	text := code.String()
	for _, typed := range []string{text, strings.ToUpper(text), " " + text[:30] + "-" + text[30:] + "\n", strings.ReplaceAll(text, "0", "o")} {
		back, err := ParseCode(typed)
		if err != nil || back.Root != code.Root || back.Steward != code.Steward || back.Key != code.Key || !slices.Equal(back.Seeds, seeds) {
			t.Errorf("%q came back as %+v, %v", typed, back, err)
		}
	}
	first, second := code.Invite(), code.Invite()
	if first.ID() != second.ID() || len(text) > 140 {
		t.Errorf("the key is not always the same, or %d letters are too many", len(text))
	}
	for i := range text {
		wrong := []byte(text)
		wrong[i] = "47"[(text[i] & 1)]
		if string(wrong) == text {
			continue
		}
		if _, err := ParseCode(string(wrong)); !errors.Is(err, ErrMalformed) {
			t.Fatalf("letter %d mistyped: %v", i, err)
		}
	}
	for _, bad := range []string{"", "bm", text[1:], text[:40], strings.Repeat("bm", 600)} {
		if _, err := ParseCode(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("ParseCode(%.20q) = %v", bad, err)
		}
	}
}

func TestPhrase(t *testing.T) {
	r, a, b := who('r').ID(), who('a').ID(), who('b').ID()
	if list := strings.Fields(words); len(list) != 256 || len(slices.Compact(slices.Sorted(slices.Values(list)))) != 256 {
		t.Fatal("not 256 different words")
	}
	phrase := Phrase(r, a, b)
	if Phrase(r, b, a) != phrase || len(strings.Fields(phrase)) != 4 {
		t.Errorf("the sides differ: %q and %q", phrase, Phrase(r, b, a))
	}
	if Phrase(r, a, r) == phrase || Phrase(a, a, b) == phrase {
		t.Error("another peer or mesh gives the same phrase")
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"ana": "ana", "Änne's laptop": "Änne's laptop", "a\x1b[31mred\n": "a[31mred", "\xff\xfe": "", "ääää": "äää",
	} {
		most := MaxName
		if in == "ääää" {
			most = 7
		}
		if got := Clean(in, most); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestRootFile(t *testing.T) {
	root, err := NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), RootFile)
	if err := root.Save(path); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if back, err := LoadRoot(path); err != nil || back.ID() != root.ID() {
		t.Errorf("%v, %v", back, err)
	}
	other, _ := NewRoot()
	if err := other.Save(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a root key was overwritten: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRoot(path); err == nil {
		t.Error("a root key others can read was accepted")
	}
}

// FuzzParse shows that what parses has exactly one encoding, and that nothing panics.
func FuzzParse(f *testing.F) {
	root := &Root{who('r')}
	charter := Found(root, "office", who('s').ID(), Secret{1}, noon)
	next, _ := charter.Amend(root, Amendment{Revoke: []Revocation{{who('a').ID(), noon}}, Appoint: []peer.ID{who('b').ID()}}, noon)
	f.Add(charter.Marshal())
	f.Add(next.Marshal())
	f.Add(Issue(Certificate{Peer: who('a').ID(), Name: "ana", Site: "berlin"}, root.ID(), root, noon).Marshal())
	f.Add(NewInvite(Invite{Key: who('i').ID(), Uses: 3, Expires: noon}, root.ID(), who('s')).Marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseCertificate(data); err == nil {
			if !bytes.Equal(c.Marshal(), data) {
				t.Errorf("certificate has two encodings: %x and %x", data, c.Marshal())
			}
			_ = charter.Check(c, noon)
		} else if !errors.Is(err, ErrMalformed) {
			t.Errorf("certificate: %v", err)
		}
		if c, err := ParseCharter(data); err == nil && !bytes.Equal(c.Marshal(), data) {
			t.Errorf("charter has two encodings: %x and %x", data, c.Marshal())
		}
		if i, err := ParseInvite(data); err == nil && !bytes.Equal(i.Marshal(), data) {
			t.Errorf("invite has two encodings: %x and %x", data, i.Marshal())
		}
	})
}

// FuzzParseCode shows that every code that parses can be written and read again.
func FuzzParseCode(f *testing.F) {
	code, _ := NewCode(who('r').ID(), who('s').ID(), []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:1")})
	f.Add(code.String())
	f.Add("bm")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if err != nil {
			return
		}
		if back, err := ParseCode(c.String()); err != nil || back.Key != c.Key || !slices.Equal(back.Seeds, c.Seeds) {
			t.Errorf("%q came back as %+v, %v", s, back, err)
		}
	})
}
