package lock

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestAcquire(t *testing.T) {
	dir := t.TempDir()
	first, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err = Acquire(dir); !errors.As(err, &held) || held.PID != os.Getpid() || held.Dir != dir {
		t.Fatalf("second Acquire: %v", err)
	}
	if want := fmt.Sprintf("directory %s is in use by another node (pid %d)", dir, os.Getpid()); err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Acquire(dir)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
	if _, err := Acquire(filepath.Join(dir, "absent")); err == nil {
		t.Error("a missing directory is no error")
	}
}

// TestOtherProcess holds the lock in a process that is killed: the lock must go with it.
func TestOtherProcess(t *testing.T) {
	if dir := os.Getenv("LOCK_TEST_DIR"); dir != "" {
		if _, err := Acquire(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		select {}
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestOtherProcess$")
	child.Env = append(os.Environ(), "LOCK_TEST_DIR="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	var held *HeldError
	_, err = Acquire(dir)
	child.Process.Kill()
	child.Wait()
	if strings.TrimSpace(line) != "held" || !errors.As(err, &held) || held.PID != child.Process.Pid {
		t.Fatalf("child said %q; Acquire beside it: %v", line, err)
	}
	l, err := Acquire(dir)
	if err != nil {
		t.Fatalf("after the holder was killed: %v", err)
	}
	l.Close()
}

func TestUnreadableHolder(t *testing.T) {
	dir := t.TempDir()
	l, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, text := range []string{"", "nonsense", "-5", strconv.Itoa(1<<40) + "0000000000000"} {
		if err := os.WriteFile(filepath.Join(dir, File), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var held *HeldError
		if _, err := Acquire(dir); !errors.As(err, &held) || held.PID != 0 || strings.Contains(err.Error(), "pid") {
			t.Errorf("with %q in the file: %v", text, err)
		}
	}
}
