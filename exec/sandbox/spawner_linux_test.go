package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestSpawnerKilled kills the spawner while an action runs: nothing of the action survives, the run is a fault of the
// machine, and the next run has a new spawner.
func TestSpawnerKilled(t *testing.T) {
	s, w := newStand(t), word(t)
	spec := s.shell("echo up; setsid sleep " + w + " & sleep " + w)
	failed := make(chan error, 1)
	go func() {
		_, err := s.box.Run(context.Background(), spec)
		failed <- err
	}()
	waitFor(t, func() bool { b, _ := os.ReadFile(filepath.Join(spec.Scratch, "stdout")); return len(b) > 0 })
	sp, err := s.box.spawners.enter(groundOf(&spec), &launched{})
	if err != nil {
		t.Fatal(err)
	}
	_ = sp.cmd.Process.Kill()
	if err := <-failed; !errors.Is(err, errInitDied) {
		t.Errorf("%v", err)
	}
	if alive(t, w) {
		t.Error("processes are left")
	}
	if r := s.run(s.shell("exit 4")); r.ExitCode != 4 {
		t.Errorf("%+v", r)
	}
}

// TestManyGrounds proves that spawners are bounded, and that those in use are kept.
func TestManyGrounds(t *testing.T) {
	s := newStand(t)
	var all sync.WaitGroup
	for uid := range 2 * maxSpawners {
		spec := s.shell("test $(id -u) = " + string(rune('0'+uid)))
		spec.UID, spec.GID = uid, uid
		all.Go(func() {
			if r, err := s.box.Run(context.Background(), spec); err != nil || r.ExitCode != 0 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	all.Wait()
	s.run(s.shell("true"))
	if n := len(s.box.spawners.latest); n > maxSpawners {
		t.Errorf("%d spawners are kept", n)
	}
}

// TestEnteredSpawnersAreKept proves that a spawner that is to launch a run is not ended for those of other grounds before it does.
func TestEnteredSpawnersAreKept(t *testing.T) {
	s := newStand(t)
	var all []*spawner
	for uid := range 2 * maxSpawners {
		sp, err := s.box.spawners.enter(ground{uid: uid, gid: uid}, &launched{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, sp)
	}
	for uid, sp := range all {
		if sp.isGone() {
			t.Errorf("spawner %d was ended", uid)
		}
	}
}

// TestReadOnlySubtree proves that parts of the input root can be kept from the action, which may write the rest.
func TestReadOnlySubtree(t *testing.T) {
	s := newStand(t)
	if err := os.MkdirAll(filepath.Join(s.lower, "sources", "deep"), 0o777); err != nil {
		t.Fatal(err)
	}
	if uid, gid, need := s.box.Owner(); need {
		for _, d := range []string{"sources", "sources/deep"} {
			if err := os.Chown(filepath.Join(s.lower, d), uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	spec := s.shell(`echo x > sources/new || echo x > sources/deep/new || rm -rf sources || mv sources other || echo x > input.txt ||
		chmod 777 input.txt || { echo x > allowed; exit 7; }`)
	spec.ReadOnly = []string{"sources", "input.txt"}
	spec.UID, spec.GID = 0, 0
	if r := s.run(spec); r.ExitCode != 7 {
		t.Errorf("%+v %s", r, read(t, r.StderrPath))
	}
	spec = s.shell(`echo x > sources/deep/new && rm sources/deep/new && ! echo x > sources/new && ! rm -rf sources/deep && exit 7`)
	spec.ReadOnly, spec.Writable = []string{"sources"}, []string{"sources/deep"}
	if r := s.run(spec); r.ExitCode != 7 {
		t.Errorf("a directory that may be written after all: %+v %s", r, read(t, r.StderrPath))
	}
	spec = s.shell("true")
	spec.ReadOnly = []string{"missing"}
	if _, err := s.box.Run(context.Background(), spec); err == nil {
		t.Error("nothing was protected, and nothing was said")
	}
	spec.ReadOnly = []string{"../outside"}
	if _, err := s.box.Run(context.Background(), spec); !errors.Is(err, ErrSpec) {
		t.Errorf("outside of the root: %v", err)
	}
	spec.ReadOnly, spec.Writable = nil, []string{"../outside"}
	if _, err := s.box.Run(context.Background(), spec); !errors.Is(err, ErrSpec) {
		t.Errorf("writable outside of the root: %v", err)
	}
}
