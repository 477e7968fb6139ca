package initproc

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want []string
	}{
		{"./tool", []string{"PATH=/bin"}, []string{"./tool"}},
		{"tool", []string{"X=1", "PATH=/a::/b"}, []string{"/a/tool", "./tool", "/b/tool"}},
		{"tool", nil, []string{"/usr/local/bin/tool", "/usr/bin/tool", "/bin/tool"}},
	} {
		if got := candidates(c.name, c.env); !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v", c.name, c.env, got)
		}
	}
}

// TestReportByHand proves that the report init writes without an encoder is the one the node decodes.
func TestReportByHand(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	tape := newTape()
	tape.reportFD, tape.status = uintptr(pipe[1]), 0x8b
	tape.usage = unix.Rusage{Utime: unix.Timeval{Sec: 1, Usec: 2}, Stime: unix.Timeval{Usec: 3}, Maxrss: 4, Inblock: 5, Oublock: 6, Minflt: 7, Majflt: 8, Nvcsw: 9, Nivcsw: 10}
	tape.report[atMemory] = 1
	tape.count()
	tape.time()
	tape.send(Ended, 0)
	buffer := make([]byte, 4096)
	n, err := unix.Read(pipe[0], buffer)
	if err != nil {
		t.Fatal(err)
	}
	got, used, err := DecodeReport(buffer[:n])
	want := Report{Kind: Ended, Status: 0x8b, Memory: true, Time: got.Time, Usage: Usage{1000002000, 3000, 4096, 5, 6, 7, 8, 9, 10}}
	if err != nil || used != n || got != want || got.Time < 1e18 {
		t.Errorf("%+v, %v", got, err)
	}
	if encoded := want.Encode(); !bytes.Equal(encoded, buffer[:n]) {
		t.Errorf("%x\n%x", buffer[:n], encoded)
	}
}

// TestResident compares the memory init finds with what the kernel says of one process in /proc/N/statm.
func TestResident(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	tape := newTape()
	name := append([]byte(decimal(int64(cmd.Process.Pid))), 0)
	want := residentPages("/proc/" + decimal(int64(cmd.Process.Pid)) + "/statm")
	if got := tape.pages(name); got <= 0 || got < want/2 {
		t.Errorf("%d pages, want about %d", got, want)
	}
	if got := tape.pages([]byte("999999999\x00")); got != 0 {
		t.Errorf("a process that is none has %d pages", got)
	}
	self := tape.pages(append([]byte(decimal(int64(os.Getpid()))), 0)) * 4096
	if all := tape.resident(); all < self {
		t.Errorf("all processes have %d bytes, this one alone %d", all, self)
	}
}
