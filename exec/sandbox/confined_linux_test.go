package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestConfined(t *testing.T) {
	s := newStandWith(t, Options{Best: TierC})
	if s.box.Tier().Guests() {
		t.Error("actions of others would be run in tier C")
	}
	secret := filepath.Join(s.dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	w := word(t)
	r := s.run(s.shell(`cat input.txt; rm -f input.txt; echo changed > input.txt
		cat ` + secret + ` && echo read; echo x > ` + secret + ` && echo written; ls /root && echo home
		test $(id -u) = 0 && echo root
		setsid sleep ` + w + ` & setsid sh -c "(sleep ` + w + ` &)"; exit 3`))
	if got := read(t, r.StdoutPath); got != "input\n" || r.ExitCode != 3 || !r.Merged {
		t.Errorf("%+v %q %s", r, got, read(t, r.StderrPath))
	}
	if read(t, filepath.Join(s.lower, "input.txt")) != "input\n" || read(t, filepath.Join(r.Upper, "input.txt")) != "changed\n" {
		t.Error("inputs are not a private copy")
	}
	if alive(t, w) {
		t.Error("processes are left")
	}
	spec := s.shell("setsid sleep " + w + " & (sleep " + w + " &) ; sleep " + w)
	spec.Limits.Wall = 300 * time.Millisecond
	if r := s.run(spec); r.Reason != TimedOut || alive(t, w) {
		t.Errorf("%+v, left: %v", r, alive(t, w))
	}
	spec = s.shell("true")
	spec.WholeRoot = true
	if _, err := s.box.Run(t.Context(), spec); !errors.Is(err, ErrNoSandbox) {
		t.Errorf("a whole root in tier C: %v", err)
	}
}
