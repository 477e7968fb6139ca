package main

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// The usage of a process counts its children, and one that works is not idle.
func TestUsage(t *testing.T) {
	cmd := exec.Command("sh", "-c", "while :; do :; done & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	busy := &Subject{Name: "busy", process: cmd.Process}
	group := &Subject{Name: "this test", process: &os.Process{Pid: os.Getpid()}}
	var percent float64
	for deadline := time.Now().Add(20 * time.Second); percent == 0 && time.Now().Before(deadline); {
		var err error
		if percent, err = busy.idlePercent(t.Context(), 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	used, err := busy.usage()
	all, allErr := group.usage()
	if percent <= 0 || err != nil || allErr != nil || used.resident <= 0 || all.resident <= used.resident/2 {
		t.Errorf("%v %% of a core, %+v (%v), all %+v (%v)", percent, used, err, all, allErr)
	}
}

func TestParseStat(t *testing.T) {
	u, parent, err := parseStat("7 (a ) b) S 3 7 7 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 9 0 100 1000 25 18446744073709551615")
	if err != nil || parent != 3 || u.processor != 2*time.Second || u.resident != 25*int64(os.Getpagesize()) {
		t.Errorf("%+v, parent %d, %v", u, parent, err)
	}
	if _, _, err := parseStat("7 (x) S 3"); err == nil {
		t.Error("a line that ends early was read")
	}
}
