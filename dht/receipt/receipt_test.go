package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

var began = time.Unix(1_800_000_000, 0)

// signers makes n identities.
func signers(t testing.TB, n int) []*peer.Identity {
	t.Helper()
	all := make([]*peer.Identity, n)
	for i := range all {
		id, err := peer.Load(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		all[i] = id
	}
	return all
}

// result is one file with content.
func result(content string) *repb.ActionResult {
	return &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: digest.SHA256.Of([]byte(content)).Proto()}}}
}

func statement(content string) Statement {
	return Statement{Mesh: "ours", Action: digest.SHA256.Of([]byte("action")), Root: [32]byte{1}, Result: result(content),
		Tier: "A", Platform: "linux/amd64", Started: began, Completed: began.Add(time.Second)}
}

func sign(t testing.TB, by Signer, content string) *Receipt {
	t.Helper()
	r, err := Sign(by, statement(content))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func key(name string) cid.Key { return cid.NewKeyer(nil).Blob(digest.SHA256.Of([]byte(name))) }

func open(t testing.TB, dir string, clock func() time.Time) *Store {
	t.Helper()
	s, err := Open(dir, Options{MaxBytes: 1 << 20, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSignAndParse(t *testing.T) {
	by := signers(t, 1)[0]
	r := sign(t, by, "good")
	again, err := Parse(bytes.Clone(r.Raw()))
	if err != nil {
		t.Fatal(err)
	}
	if again.Executor != by.ID() || again.Action != r.Action || again.Tier != "A" || !again.Completed.Equal(r.Completed) || !again.Agrees(r) {
		t.Errorf("came back as %+v", again.Statement)
	}
	s := statement("good")
	if err := again.Check("ours", s.Action, s.Root); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another mesh":   again.Check("theirs", s.Action, s.Root),
		"another action": again.Check("ours", digest.SHA256.Of([]byte("other")), s.Root),
		"another root":   again.Check("ours", s.Action, [32]byte{2}),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	failed := statement("good")
	failed.Result.ExitCode = 1
	if f, err := Sign(by, failed); err != nil || !errors.Is(f.Check("ours", s.Action, s.Root), ErrInvalid) {
		t.Errorf("a failed action's receipt passes, %v", err)
	}
}

// Every changed bit of a receipt makes it invalid, or leaves what was signed as it was.
func TestEveryBitCounts(t *testing.T) {
	r := sign(t, signers(t, 1)[0], "good")
	for i := range r.Raw() {
		for bit := range 8 {
			raw := bytes.Clone(r.Raw())
			raw[i] ^= 1 << bit
			if got, err := Parse(raw); err == nil && (got.Action != r.Action || got.Executor != r.Executor || !got.Agrees(r)) {
				t.Fatalf("byte %d, bit %d: another statement passes", i, bit)
			}
		}
	}
}

// A signature over the same bytes without the domain is not a receipt's.
func TestDomain(t *testing.T) {
	by := signers(t, 1)[0]
	if _, err := Sign(bare{by}, statement("good")); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed without the domain: %v", err)
	}
}

// bare signs without the domain, as another protocol of the same key would.
type bare struct{ *peer.Identity }

func (b bare) Sign(message []byte) []byte { return b.Identity.Sign(message[len(domain):]) }

func TestPolicy(t *testing.T) {
	by := signers(t, 4)
	self := by[0].ID()
	own, a, b, c := sign(t, by[0], "own"), sign(t, by[1], "x"), sign(t, by[2], "x"), sign(t, by[3], "y")
	for _, test := range []struct {
		policy   string
		receipts []*Receipt
		want     *Receipt
	}{
		{"self", []*Receipt{a, b}, nil},
		{"self", []*Receipt{a, own}, own},
		{"mesh", []*Receipt{a, b}, a},
		{"mesh", []*Receipt{a, own}, own},
		{"mesh", nil, nil},
		{"quorum 2", []*Receipt{a}, nil},
		{"quorum 2", []*Receipt{a, a}, nil},
		{"quorum 2", []*Receipt{c, a, b}, a},
		{"quorum 3", []*Receipt{c, a, b}, nil},
		{"quorum 3", []*Receipt{a, own}, own},
	} {
		p, err := ParsePolicy(test.policy)
		if err != nil || p.String() != test.policy {
			t.Fatalf("%s is read as %s, %v", test.policy, p, err)
		}
		if got := p.Choose(self, test.receipts); got != test.want {
			t.Errorf("%s of %d receipts chooses %v", test.policy, len(test.receipts), got)
		}
	}
	for _, bad := range []string{"", "all", "quorum", "quorum 1", "quorum 17", "quorum x"} {
		if _, err := ParsePolicy(bad); err == nil {
			t.Errorf("policy %q is taken", bad)
		}
	}
}

func TestCompare(t *testing.T) {
	one := result("same")
	one.OutputSymlinks = []*repb.OutputSymlink{{Path: "link", Target: "out"}}
	one.StdoutRaw = []byte("took 3 s")
	other := result("same")
	other.OutputSymlinks = []*repb.OutputSymlink{{Path: "link", Target: "out"}}
	if diff := Compare(one, other); len(diff) != 0 {
		t.Errorf("what was printed counts: %v", diff)
	}
	other.OutputFiles[0].IsExecutable = true
	other.OutputSymlinks = nil
	diff := Compare(one, other)
	if len(diff) != 2 || diff[0].Path != "link" || diff[0].Other != "" || diff[1].Path != "out" {
		t.Errorf("differences are %v", diff)
	}
}

func TestDisagreement(t *testing.T) {
	by, dir, k := signers(t, 3), t.TempDir(), key("action")
	s := open(t, dir, nil)
	put := func(r *Receipt, want bool) {
		t.Helper()
		if disagree, err := s.Put(k, r); err != nil || disagree != want {
			t.Fatalf("disagree %v, %v; want %v", disagree, err, want)
		}
	}
	put(sign(t, by[0], "x"), false)
	put(sign(t, by[0], "x"), false) // again: takes the first one's place
	put(sign(t, by[1], "x"), false)
	if all, err := s.Get([]cid.Key{k, key("other")}); err != nil || len(all[0]) != 2 || len(all[1]) != 0 {
		t.Fatalf("%d and %d receipts, %v", len(all[0]), len(all[1]), err)
	}
	if s.Quarantined(k) {
		t.Fatal("quarantined without a reason")
	}
	liar := sign(t, by[2], "y")
	put(liar, true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil) // evidence survives
	evidence, err := s.Evidence()
	if err != nil || !s.Quarantined(k) || len(evidence) != 1 || len(evidence[0].Receipts) != 3 {
		t.Fatalf("evidence %v, %v", evidence, err)
	}
	if !bytes.Equal(evidence[0].Receipts[0].Raw(), liar.Raw()) {
		t.Error("evidence is not the exact bytes")
	}
	if err := s.Absolve(k); err != nil || s.Quarantined(k) {
		t.Errorf("absolved: %v", err)
	}
	if all, _ := s.Get([]cid.Key{k}); len(all[0]) != 0 {
		t.Error("receipts stay after the quarantine ended")
	}
}

// One executor that signs two results for one action contradicts itself.
func TestSelfContradiction(t *testing.T) {
	by, k := signers(t, 1)[0], key("action")
	s := open(t, t.TempDir(), nil)
	s.Put(k, sign(t, by, "x"))
	if disagree, err := s.Put(k, sign(t, by, "y")); err != nil || !disagree {
		t.Errorf("disagree %v, %v", disagree, err)
	}
}

// A revoked peer's receipts go by when they came, whatever date they carry.
func TestRevoke(t *testing.T) {
	by := signers(t, 2)
	now := began
	s := open(t, t.TempDir(), func() time.Time { return now })
	s.Put(key("old"), sign(t, by[0], "x"))
	now = began.Add(time.Hour)
	s.Put(key("new"), sign(t, by[0], "x")) // carries the same date
	s.Put(key("both"), sign(t, by[0], "x"))
	s.Put(key("both"), sign(t, by[1], "x"))
	since, said := map[peer.ID]time.Time{by[0].ID(): began.Add(time.Minute)}, 0
	take := func(Statement) error { said++; return nil }
	for range 2 { // what was done is done once more, as after a start
		gone, err := s.Revoke(since, take)
		if err != nil || said != 2 || !slices.Contains(gone, key("old")) || slices.Contains(gone, key("both")) {
			t.Fatalf("%d said, gone %v, %v", said, gone, err)
		}
	}
	left := func() [3]int {
		all, err := s.Get([]cid.Key{key("old"), key("new"), key("both")})
		if err != nil {
			t.Fatal(err)
		}
		return [3]int{len(all[0]), len(all[1]), len(all[2])}
	}
	if got := left(); got != [3]int{1, 0, 1} {
		t.Errorf("left are %v", got)
	}
	if _, err := s.Put(key("both"), sign(t, by[0], "x")); !errors.Is(err, ErrUntrusted) || left() != [3]int{1, 0, 1} {
		t.Errorf("a receipt that comes after its signer was revoked: %v", err)
	}
	since[by[0].ID()] = time.Time{}
	if gone, err := s.Revoke(since, take); err != nil || said != 3 || len(gone) != 1 || left() != [3]int{0, 0, 1} {
		t.Errorf("revoked in everything: %d said, gone %v, %v", said, gone, err)
	}
}

// Who is killed while it drops receipts finds the one again of which not everything was dropped yet.
func TestRevokeIsRepeated(t *testing.T) {
	by := signers(t, 1)[0]
	s := open(t, t.TempDir(), nil)
	s.Put(key("one"), sign(t, by, "x"))
	killed := errors.New("killed")
	revoked := map[peer.ID]time.Time{by.ID(): {}}
	if _, err := s.Revoke(revoked, func(Statement) error { return killed }); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	said := 0
	if gone, err := s.Revoke(revoked, func(Statement) error { said++; return nil }); err != nil || said != 1 || len(gone) != 1 {
		t.Errorf("%d said, gone %v, %v", said, gone, err)
	}
}

// Raw gives what was signed, byte for byte, and Keys every key.
func TestRaw(t *testing.T) {
	by := signers(t, 1)[0]
	s := open(t, t.TempDir(), nil)
	want := map[cid.Key][]byte{}
	var keys []cid.Key
	for i := range 50 {
		k := key(fmt.Sprint(i))
		r := sign(t, by, fmt.Sprint(i))
		keys, want[k] = append(keys, k), r.Raw()
		if _, err := s.Put(k, r); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := s.Raw(append(keys, key("absent")))
	if err != nil || len(raw[50]) != 0 {
		t.Fatal(err)
	}
	for i, k := range keys {
		if len(raw[i]) != 1 || !bytes.Equal(raw[i][0], want[k]) {
			t.Fatalf("receipt %d changed", i)
		}
	}
	s.Keys(func(k cid.Key) error { delete(want, k); return nil })
	if len(want) != 0 {
		t.Errorf("%d keys are not told of", len(want))
	}
}

func TestSample(t *testing.T) {
	for _, c := range []struct {
		share  float64
		known  time.Duration
		random float64
		want   bool
	}{
		{0.015, time.Hour, 0.044, true}, {0.015, time.Hour, 0.046, false}, {0.015, 48 * time.Hour, 0.014, true}, {0.015, 48 * time.Hour, 0.016, false},
		{0, 0, 0, false}, {0, 48 * time.Hour, 0, false}, {0.5, 0, 0.999, true}, {1, 48 * time.Hour, 0.999, true},
	} {
		if got := NewSample(c.share).Wants(c.known, c.random); got != c.want {
			t.Errorf("of %v, known for %s, %v: %v", c.share, c.known, c.random, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sign(f, signers(f, 1)[0], "good").Raw())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := Parse(raw); err == nil {
			outputs(r.Result)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7})
	f.Fuzz(func(t *testing.T, b []byte) { decode(b) })
}

func BenchmarkParse(b *testing.B) {
	raw := sign(b, signers(b, 1)[0], "good").Raw()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
