package roster

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// silent fails the test when it is told of anything.
func silent(t *testing.T) func(error) {
	return func(err error) { t.Errorf("noted: %v", err) }
}

func TestPersistence(t *testing.T) {
	dir := t.TempDir()
	r := Open(dir, self, silent(t))
	m := member(ana, "boot")
	m.Site, m.Roles = "haus", 1
	m.Control, m.Bulk = netip.MustParseAddrPort("[fe80::1%eth0]:1"), netip.MustParseAddrPort("10.0.0.7:2")
	r.ClaimAlive(m)
	r.ClaimAlive(member(ben, "boot"))
	r.ClaimGone(ben, "boot", true)
	r.Failed(ben, "refused")
	m.Met = r.Now().Members[0].Met
	if since := time.Since(m.Met); since < 0 || since > time.Hour {
		t.Errorf("met %v ago", since)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	again := Open(dir, self, silent(t))
	defer again.Close()
	members := again.Now().Members
	if len(members) != 1 {
		t.Fatalf("%+v: who left is nobody to look for", members)
	}
	got := members[0]
	if got.State != Dead || got.Reason == "" {
		t.Errorf("%+v: restored as present", got)
	}
	if !got.Met.Equal(m.Met) {
		t.Errorf("met at %v, want %v", got.Met, m.Met)
	}
	got.Met, got.State, got.Since, got.Reason, m.Boot = m.Met, Alive, m.Since, "", ""
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got  %+v\nwant %+v", got, m)
	}
	info, err := os.Stat(filepath.Join(dir, File))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v", info, err)
	}
}

func TestDamagedFile(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":        "{",
		"empty":           "",
		"another version": `{"version": 99, "members": []}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, File)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var noted error
			r := Open(dir, self, func(err error) { noted = err })
			r.ClaimAlive(member(ana, "a"))
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if noted == nil {
				t.Error("nobody was told")
			}
			if kept, err := os.ReadFile(file + ".bad"); err != nil || string(kept) != text {
				t.Errorf("not set aside: %q, %v", kept, err)
			}
			if got := Open(dir, self, silent(t)); len(got.Now().Members) != 1 || got.Close() != nil {
				t.Error("the new file holds nothing")
			}
		})
	}
	if _, err := decode([]byte(`{"version":1,"members":[{"id":"x","gossip":"1.2.3.4:5"},{"id":"` + ana.String() + `","gossip":"nowhere"}]}`)); err != nil {
		t.Errorf("records that make no sense: %v", err)
	}
}

func TestSaveFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := Open(dir, self, silent(t))
	r.ClaimAlive(member(ana, "a"))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err == nil {
		t.Error("a roster that could not be kept was closed without a word")
	}
}

func TestNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Open("", self, silent(t))
		defer r.Close()
		var watching sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		states := make(chan State, 16)
		watching.Go(func() {
			for version := uint64(0); ; {
				s, err := r.Next(ctx, version)
				if err != nil {
					return
				}
				version = s.Version
				m, _ := s.Get(ana)
				states <- m.State
			}
		})
		expect := func(want State) {
			t.Helper()
			synctest.Wait()
			if got := <-states; got != want || len(states) != 0 {
				t.Fatalf("%v, want %v; %d more", got, want, len(states))
			}
		}
		r.ClaimAlive(member(ana, "a"))
		expect(Alive)
		r.ClaimGone(ana, "a", false)
		expect(Suspect)
		if got := r.Doubtful(); len(got) != 1 || got[0] != ana {
			t.Errorf("doubtful: %v", got)
		}
		time.Sleep(lookWithin)
		expect(Dead) // by time alone
		r.Seen(ana)
		expect(Alive)
		time.Sleep(holds)
		expect(Suspect)
		time.Sleep(lookWithin)
		expect(Dead)
		r.Forget(ana)
		expect(Alive) // the zero member: she is not there
		if _, there := r.Now().Get(ana); there {
			t.Error("still there")
		}
		cancel()
		watching.Wait()
	})
}

func TestSavesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		r := Open(dir, self, silent(t))
		defer r.Close()
		r.ClaimAlive(member(ana, "a"))
		time.Sleep(saveEvery + time.Second)
		synctest.Wait()
		if members, err := load(path(dir)); err != nil || len(members) != 1 {
			t.Errorf("%v, %v", members, err)
		}
	})
}

// TestTogether is for the race detector.
func TestTogether(t *testing.T) {
	r := Open(t.TempDir(), self, silent(t))
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			id := peer.ID{7, byte(i)}
			for range 50 {
				r.ClaimAlive(member(id, "a"))
				r.Seen(id)
				r.Failed(id, "x")
				r.ClaimGone(id, "a", false)
				r.Now()
				r.Doubtful()
			}
		})
	}
	group.Wait()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := encode([]Member{member(ana, "a")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"members":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := decode(data)
		if err != nil {
			return
		}
		for _, m := range members {
			if m.ID.IsZero() && !m.Gossip.IsValid() {
				t.Errorf("%+v", m)
			}
		}
		if _, err := encode(members); err != nil {
			t.Error(err)
		}
	})
}
