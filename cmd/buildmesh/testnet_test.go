//go:build unix

package main

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asProgram tells the test binary to be the program: nodes of a testnet are processes.
const asProgram = "TEST_AS_BUILDMESH=1"

// TestTestnet runs a mesh of three, looks at it as its user would, kills a node and ends the mesh.
func TestTestnet(t *testing.T) {
	var out, errOut lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	status := -1
	dir := t.TempDir()
	running.Go(func() {
		status = run([]string{"testnet", "up", "-n", "3", "--dir", dir},
			verbContext{ctx: ctx, out: &out, errOut: &errOut, environ: append(os.Environ(), asProgram)})
	})
	defer running.Wait()
	defer cancel()
	says := func(want string) []string {
		t.Helper()
		form := regexp.MustCompile(want)
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if found := form.FindStringSubmatch(out.String()); found != nil {
				return found
			}
		}
		t.Fatalf("it does not say %s but\n%s%s", want, out.String(), errOut.String())
		return nil
	}
	look := says(`(?s)\na mesh of 3 after .*\nn3 +grpc://127\.0\.0\.1:\d+ .*\nlook: +buildmesh (--config \S+) peers\n.*\nend: +Ctrl-C\n`)
	var pids []int
	for _, name := range []string{"n1", "n2", "n3"} {
		file := strings.Replace(look[1], "n1.toml", name+".toml", 1)
		got := typed(t, append(strings.Fields(file), "status")...)
		pid := regexp.MustCompile(`(?s)^node +` + name + `, .*pid (\d+)`).FindStringSubmatch(got.out)
		if pid == nil {
			t.Fatalf("status of %s: %+v", name, got)
		}
		number, _ := strconv.Atoi(pid[1])
		pids = append(pids, number)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // who stands still for a moment is suspected
		got := typed(t, append(strings.Fields(look[1]), "peers")...)
		if strings.Count(got.out, " alive ") == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("peers: %+v", got)
		}
	}
	if err := syscall.Kill(pids[1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	says(`\nnode n2 has ended \(signal: killed\); its log is .*n2\.log; start it again with: buildmesh --config \S+n2\.toml up\n`)
	cancel()
	running.Wait()
	if status != statusDone {
		t.Errorf("it ended with %d: %s", status, errOut.String())
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Errorf("process %d is left", pid)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("directories are left: %v, %v", left, err)
	}
}

// TestTestnetDemo shows what it says it does.
func TestTestnetDemo(t *testing.T) {
	var out, errOut lockedBuffer
	status := run([]string{"testnet", "demo", "-n", "3", "--dir", t.TempDir()},
		verbContext{ctx: t.Context(), out: &out, errOut: &errOut, environ: append(os.Environ(), asProgram)})
	form := regexp.MustCompile(`(?s)n2 +alive .*\$ kill -9 \d+ +# node n2\nall others know after .*n2 +dead .*all see each other again\n.*n2 +alive `)
	if said := out.String(); status != statusDone || !form.MatchString(said) {
		t.Errorf("it ended with %d and says\n%s%s", status, said, errOut.String())
	}
}

func TestTestnetUsage(t *testing.T) {
	if got := typed(t, "testnet", "up", "-n", "51"); got.status != statusUsage || !strings.Contains(got.err, "between 1 and 50") {
		t.Errorf("51 nodes: %+v", got)
	}
}
