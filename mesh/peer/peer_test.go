package peer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, File))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: mode %v, %v", info.Mode(), err)
	}
	again, err := Load(dir)
	if err != nil || again.ID() != first.ID() {
		t.Fatalf("second start: %v, %v; first was %v", again.ID(), err, first.ID())
	}
	message := []byte("result")
	if !first.ID().Verify(message, again.Sign(message)) {
		t.Error("own signature does not verify")
	}
	if first.ID().Verify([]byte("other"), again.Sign(message)) {
		t.Error("a signature verifies another message")
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("%d files left in the directory, want the key alone", len(left))
	}
}

func TestLoadTogether(t *testing.T) {
	dir := t.TempDir()
	ids := make([]ID, 8)
	var group sync.WaitGroup
	for i := range ids {
		group.Go(func() {
			id, err := Load(dir)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = id.ID()
		})
	}
	group.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("two identities: %v and %v", id, ids[0])
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"open to others": {"x", 0o644, "open to others"},
		"not PEM":        {"x", 0o600, "no PEM block"},
		"not PKCS8":      {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "identity"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, File)
			if err := os.WriteFile(path, []byte(test.content), test.mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if kept, _ := os.ReadFile(path); string(kept) != test.content {
				t.Error("the refused file was changed")
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a missing directory is no error")
	}
}

// The pair is the Ed25519 vector of the libp2p peer-ids specification.
func TestIDText(t *testing.T) {
	public, _ := hex.DecodeString("1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
	const text = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
	id := ID(public)
	parsed, err := Parse(id.String())
	if err != nil || parsed != id {
		t.Fatalf("Parse(String) = %v, %v", parsed, err)
	}
	if id.String() != text {
		t.Errorf("text form %s, want %s", id, text)
	}
	if id.Short() != id.String()[44:] || id.IsZero() || !(ID{}).IsZero() {
		t.Error("Short or IsZero is wrong")
	}
	for _, bad := range []string{"", "1", "0OIl", text[1:], text + "1", strings.Repeat("1", 52), strings.Repeat("z", 4096)} {
		if _, err := Parse(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%.20q) = %v, want ErrInvalid", bad, err)
		}
	}
}

func TestBase58(t *testing.T) {
	for plain, want := range map[string]string{
		"":                         "",
		"Hello World!":             "2NEpo7TZRRrLZSi2U",
		"\x00\x00\x28\x7f\xb4\xcd": "11233QC4",
	} {
		if got := encode58([]byte(plain)); got != want {
			t.Errorf("encode58(%q) = %s, want %s", plain, got, want)
		}
		if got, err := decode58(want); err != nil || string(got) != plain {
			t.Errorf("decode58(%s) = %q, %v", want, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ID{1, 2, 3}.String())
	f.Add("1111")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err == nil && id.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, id.String())
		}
		if raw, err := decode58(s); err == nil {
			back, err := decode58(encode58(raw))
			if err != nil || !bytes.Equal(back, raw) {
				t.Errorf("%x came back as %x, %v", raw, back, err)
			}
		}
	})
}
