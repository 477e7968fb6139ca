//go:build unix

package clients

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BuildStream is the root's BuildStream 2.8.1 with a project to build.
type BuildStream struct {
	Place   Place
	project string // the project's directory, as seen from outside
	busybox string
}

// BuildStream puts the project into the Debian testing root and makes its root file system out of busybox.
func (k Kit) BuildStream(t testing.TB) *BuildStream {
	t.Helper()
	place := k.Root(t)
	b := &BuildStream{Place: place, project: filepath.Join(place.Dir, "greeting")}
	if err := os.CopyFS(b.project, os.DirFS(filepath.Join(k.here, "greeting"))); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.busybox, err = exec.LookPath("busybox"); err != nil {
		t.Fatalf("no busybox, which package busybox-static has: %v", err)
	}
	if err := b.rootfs(filepath.Join(b.project, "files", "rootfs")); err != nil {
		t.Fatal(err)
	}
	return b
}

// On is the same BuildStream, started by begin: on a machine of a laboratory, say. 127.0.0.1 is then that machine.
func (b *BuildStream) On(begin func(*exec.Cmd) error) *BuildStream {
	there := *b
	there.Place.begin = begin
	return &there
}

// Element adds an element to the project, or replaces it.
func (b *BuildStream) Element(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.project, "elements", name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rootfs makes a root file system of one static program, with an absolute link among the relative ones.
func (b *BuildStream) rootfs(dir string) error {
	for _, name := range []string{"bin", "etc", "usr/bin", "usr/lib", "tmp", "dev", "proc"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(b.busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "busybox"), data, 0o755); err != nil {
		return err
	}
	applets, err := exec.Command(b.busybox, "--list").Output()
	if err != nil {
		return err
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	return os.Symlink("/bin/sh", filepath.Join(dir, "usr", "bin", "sh"))
}

// Server is where Remote Execution answers.
type Server struct{ Address, Instance string }

// yaml is the server as buildstream.conf names it.
func (s Server) yaml() string {
	if s.Instance == "" {
		return fmt.Sprintf("url: %q", "http://"+s.Address)
	}
	return fmt.Sprintf("url: %q, instance-name: %s", "http://"+s.Address, s.Instance)
}

// Service is a part of a Remote Execution server that BuildStream is told to use.
type Service string

// The services, as sections of buildstream.conf name them. Execution includes storage and action cache.
const (
	Artifacts Service = "artifacts"
	Sources   Service = "source-caches"
	Execution Service = "remote-execution"
)

// Client is a BuildStream with caches of its own, empty at first.
type Client struct {
	stream *BuildStream
	dir    string // as seen from outside
}

// NewClient makes a fresh client of a server, which uses the given services of it and builds locally what
// it may not execute there.
func (b *BuildStream) NewClient(t testing.TB, server Server, services ...Service) *Client {
	t.Helper()
	dir, err := os.MkdirTemp(b.Place.Dir, "client-")
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{stream: b, dir: dir}
	inside := b.Place.Inside(dir)
	var conf strings.Builder
	fmt.Fprintf(&conf, "cachedir: %s/cache\nsourcedir: %s/sources\nlogdir: %s/logs\n", inside, inside, inside)
	conf.WriteString("scheduler: {network-retries: 0, on-error: quit}\n")
	for _, service := range services {
		if service != Execution {
			fmt.Fprintf(&conf, "%s:\n  override-project-caches: true\n  servers:\n", service)
			fmt.Fprintf(&conf, "  - {%s, type: all, push: true}\n", server.yaml())
			continue
		}
		fmt.Fprintf(&conf, "%s:\n", service)
		for _, part := range []string{"execution", "storage", "action-cache"} {
			fmt.Fprintf(&conf, "  %s-service: {%s}\n", part, server.yaml())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "buildstream.conf"), []byte(conf.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// Streamed is what one call of BuildStream said.
type Streamed struct {
	Exit    int
	Output  string
	Elapsed time.Duration
	Queues  map[string]int // elements processed, by queue: "Pull", "Fetch", "Build", ...
}

// Run calls bst in the project's directory and waits, at most five minutes.
func (c *Client) Run(t testing.TB, args ...string) Streamed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	b := c.stream
	all := append([]string{"--no-colors", "--no-interactive", "-c", b.Place.Inside(c.dir) + "/buildstream.conf"}, args...)
	cmd := b.Place.Command(ctx, b.project, "bst", all...)
	// Its child buildbox-casd outlives it for a moment and must not hold the pipe.
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 10 * time.Second
	begun := time.Now()
	err := b.Place.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if cmd.ProcessState == nil {
		t.Fatalf("start bst: %v", err)
	}
	s := Streamed{Exit: cmd.ProcessState.ExitCode(), Output: out.String(), Elapsed: time.Since(begun)}
	s.Queues = parseQueues(s.Output)
	return s
}

// Show is a line of `bst show` about one element, in BuildStream's own format.
func (c *Client) Show(t testing.TB, element, format string) string {
	t.Helper()
	s := c.Run(t, "show", "--deps", "none", "--format", format, element)
	if s.Exit != 0 {
		t.Fatalf("bst show %s: exit %d\n%s", element, s.Exit, s.Tail())
	}
	lines := strings.Split(strings.TrimSpace(s.Output), "\n")
	return lines[len(lines)-1]
}

// Checkout gives the files of a built element's artifact, as a directory seen from outside.
func (c *Client) Checkout(t testing.TB, element string) string {
	t.Helper()
	dir := filepath.Join(c.dir, "checkout-"+strings.ReplaceAll(element, "/", "-"))
	s := c.Run(t, "artifact", "checkout", "--deps", "none", "--directory", c.stream.Place.Inside(dir), element)
	if s.Exit != 0 {
		t.Fatalf("bst artifact checkout %s: exit %d\n%s", element, s.Exit, s.Tail())
	}
	return dir
}

// queueLine is BuildStream's summary, like "    Build Queue: processed 3, skipped 0, failed 0".
var queueLine = regexp.MustCompile(`(?m)^\s*(\w+) Queue:\s*processed (\d+)`)

func parseQueues(output string) map[string]int {
	queues := map[string]int{}
	for _, found := range queueLine.FindAllStringSubmatch(output, -1) {
		if n, err := strconv.Atoi(found[2]); err == nil {
			queues[found[1]] += n
		}
	}
	return queues
}

// Tail is the end of a long output, for messages.
func (s Streamed) Tail() string { return tail(s.Output, 80) }
