//go:build unix

package clients

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// built fails the test unless BuildStream succeeded and its queues processed as many elements as wanted.
func built(t *testing.T, what string, s Streamed, want map[string]int) {
	t.Helper()
	if s.Exit != 0 {
		t.Fatalf("%s: exit %d\n%s", what, s.Exit, s.Tail())
	}
	t.Logf("%s: %.1f s, %v", what, s.Elapsed.Seconds(), s.Queues)
	for queue, n := range want {
		if s.Queues[queue] != n {
			t.Errorf("%s: the %s queue processed %d elements, want %d\n%s", what, queue, s.Queues[queue], n, s.Tail())
		}
	}
}

// A project of three elements, one of which runs an integration command, is built on the node; then a client that has
// nothing pulls it, and one without artifacts gets all of it from the action cache.
func TestBuildStream(t *testing.T) {
	stream := Find(t).BuildStream(t)
	node := stream.Place.StartNode(t)
	first := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	built(t, "from empty", first.Run(t, "build", "use.bst"), map[string]int{"Build": 3, "Pull": 0})
	said(t, first)
	ran := node.Metric("buildmesh_actions_total")
	if ran < 3 { // two elements and one integration; an import needs none
		t.Errorf("%v actions ran on the node, want at least 3", ran)
	}
	why, err := node.Run("why", "greeting/hello.bst")
	if err != nil || !strings.Contains(why, "greeting/hello.bst, ") || !strings.Contains(why, "\noutcome  exit code 0 on ") {
		t.Errorf("%v: the element is not known by its name:\n%s", err, why)
	}
	if signed, err := node.Run("cache", "ls"); err != nil || !strings.Contains(signed, " greeting/use.bst\n") {
		t.Errorf("%v: the element's result is not listed by its name:\n%s", err, signed)
	}

	second := stream.NewClient(t, node.BuildStream(), Artifacts, Sources, Execution)
	built(t, "again, with pulls", second.Run(t, "build", "use.bst"), map[string]int{"Build": 0, "Pull": 1})
	said(t, second)

	built(t, "the rest, with pulls", second.Run(t, "artifact", "pull", "--deps", "all", "use.bst"), map[string]int{"Pull": 2})

	third := stream.NewClient(t, node.BuildStream(), Execution)
	built(t, "again, from the action cache", third.Run(t, "build", "use.bst"), map[string]int{"Build": 3})
	said(t, third)
	if again := node.Metric("buildmesh_actions_total"); again != ran {
		t.Errorf("%v actions ran again", again-ran)
	}
}

// A command that fails ends the build with its words and is not cached: the next client's runs again.
func TestBuildStreamFailure(t *testing.T) {
	stream := Find(t).BuildStream(t)
	node := stream.Place.StartNode(t)
	for attempt := 1; attempt <= 2; attempt++ {
		s := stream.NewClient(t, node.BuildStream(), Execution).Run(t, "build", "broken.bst")
		if s.Exit == 0 || !strings.Contains(s.Output, "this element fails on purpose") || !strings.Contains(s.Output, "exitcode 7") {
			t.Errorf("attempt %d: exit %d\n%s", attempt, s.Exit, s.Tail())
		}
		if ran := node.Metric("buildmesh_actions_total"); int(ran) != attempt {
			t.Errorf("%v actions ran after %d attempts", ran, attempt)
		}
	}
}

// A workspace is built again without what is newer than its source, as a user who was asked for: the times of what the
// first build wrote come back with its outputs and go out with the inputs of the second.
func TestBuildStreamWorkspace(t *testing.T) {
	stream := Find(t).BuildStream(t)
	node := stream.Place.StartNode(t)
	client := stream.NewClient(t, node.BuildStream(), Execution)
	work := filepath.Join(client.dir, "work")
	built(t, "open", client.Run(t, "workspace", "open", "--directory", stream.Place.Inside(work), "asked.bst"), nil)
	for i, want := range []string{"made", "kept"} {
		built(t, want, client.Run(t, "build", "asked.bst"), nil)
		dir := client.Checkout(t, "asked.bst")
		if how, err := os.ReadFile(filepath.Join(dir, "out", "how")); err != nil || string(how) != want+"\n" {
			t.Errorf("build %d: %v: the product was %s, want %s", i, err, how, want)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(work, "other"), []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// said looks into what use.bst made.
func said(t *testing.T, c *Client) {
	t.Helper()
	dir := c.Checkout(t, "use.bst")
	for _, name := range []string{"out/said", "out/integrated"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != "hello mesh\n" {
			t.Errorf("%s: %v: %q", name, err, data)
		}
	}
}
