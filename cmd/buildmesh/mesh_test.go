//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ran types a line at the node and fails the test when it does not end as it should; it gives what was
// printed.
func (u *upped) ran(t *testing.T, line string, status int) string {
	t.Helper()
	got := u.typed(t, strings.Fields(line)...)
	if got.status != status {
		t.Fatalf("%s: status %d, want %d: %s%s", line, got.status, status, got.out, got.err)
	}
	return got.out + got.err
}

// TestMesh founds a mesh with its root key on a memory stick, brings two nodes in, turns one out, makes
// the other a steward, and ends the mesh.
func TestMesh(t *testing.T) {
	ana, bob, eve := up(t, "--set", "node.name=ana"), up(t, "--set", "node.name=bob", "--set", "mesh.site=paris"), up(t, "--set", "node.name=eve")
	stick := filepath.Join(t.TempDir(), "root.pem")
	if out := ana.ran(t, "init --name office --root-key "+stick, statusDone); !strings.Contains(out, "founded mesh office; its root key is "+stick) {
		t.Errorf("init: %s", out)
	}
	if info, err := os.Stat(stick); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root key: %v, %v", info, err)
	}
	invited := ana.ran(t, "invite --uses 2 --expires 10m", statusDone)
	join := regexp.MustCompile(`^buildmesh (join bm\w+)\n\nGood for 2 nodes to join mesh office until `).FindStringSubmatch(invited)
	if join == nil {
		t.Fatalf("invite: %s", invited)
	}
	joined := bob.ran(t, join[1], statusDone)
	words := regexp.MustCompile(`^joined mesh office, admitted by ana\n.*: (\w+ \w+ \w+ \w+)\n$`).FindStringSubmatch(joined)
	if words == nil {
		t.Fatalf("join: %s", joined)
	}
	eve.ran(t, join[1], statusDone)
	for node, want := range map[*upped]string{
		ana: `(?s)^mesh +office\n.*\nana .* steward .* this node +-\nbob .* paris +member .* yes +` + words[1] + `\neve `,
		bob: `(?s)^mesh +office\n.*\nbob .* member .* this node +-\nana .* steward .* yes +` + words[1] + `\n`,
	} {
		if out := node.ran(t, "members", statusDone); !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("members:\n%s\nwant %s", out, want)
		}
	}
	for line, want := range map[string]string{
		join[1]:                           `already`,
		"invite":                          `no steward`,
		"revoke ana":                      `--root-key FILE`,
		"revoke nobody":                   `buildmesh members`,
		"revoke bob":                      `buildmesh leave`,
		"init":                            `buildmesh leave`,
		"join bm123":                      `copy it whole`,
		"revoke ana --since soon":         `no time like`,
		"invite --uses 0":                 `1 to 1000`,
		"appoint ana --root-key /nowhere": `no such file`,
	} {
		status := statusFailed
		if strings.Contains(line, "--since") {
			status = statusUsage
		}
		if out := bob.ran(t, line, status); !strings.Contains(out, want) {
			t.Errorf("%s: %s; want %s", line, out, want)
		}
	}
	ana.ran(t, "revoke eve --since 2h --root-key "+stick, statusDone)
	if out := ana.ran(t, "members", statusDone); strings.Contains(out, "eve") || !strings.Contains(out, "charter 2") {
		t.Errorf("after revoke: %s", out)
	}
	ana.ran(t, "appoint bob --root-key "+stick, statusDone)
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(bob.ran(t, "members", statusDone), "charter 3"); {
		if time.Now().After(deadline) {
			t.Fatal("bob does not hear of the charter that makes him a steward")
		}
	}
	if out := bob.ran(t, "invite", statusDone); !strings.Contains(out, "mesh office") {
		t.Errorf("a new steward: %s", out)
	}
	if out := bob.ran(t, "leave", statusDone); !strings.Contains(out, "left mesh office; this node is alone in mesh bob now") {
		t.Errorf("leave: %s", out)
	}
	if out := eve.ran(t, "leave", statusDone); !strings.Contains(out, "left mesh office") {
		t.Errorf("leave: %s", out)
	}
	if out := eve.ran(t, join[1], statusFailed); !strings.Contains(out, "revoked") {
		t.Errorf("who was revoked joins again: %s", out)
	}
}

// TestNoMesh runs the verbs on a node that takes part in none.
func TestNoMesh(t *testing.T) {
	u := up(t, "--set", "mesh.enabled=false")
	for _, line := range []string{"members", "invite", "join bm1", "leave", "init", "revoke x", "appoint x"} {
		if out := u.ran(t, line, statusFailed); !strings.Contains(out, "mesh.enabled is false") {
			t.Errorf("%s: %s", line, out)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]string{
		"2h": "2026-11-25 10:00", "2026-11-24": "2026-11-24 00:00", "2026-11-24T13:30": "2026-11-24 13:30",
		now.Format(time.RFC3339): "2026-11-25 12:00",
	} {
		if got, err := moment(text, now); err != nil || got.In(time.Local).Format("2006-01-02 15:04") != want {
			t.Errorf("%s is %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"-2h", "soon", "25.11.2026"} {
		if got, err := moment(text, now); err == nil {
			t.Errorf("%s is %s", text, fmt.Sprint(got))
		}
	}
}
