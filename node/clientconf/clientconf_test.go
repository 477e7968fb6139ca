package clientconf

import (
	"strings"
	"testing"
)

func TestBazel(t *testing.T) {
	text := Bazel(Endpoint{Address: "127.0.0.1:8980", Execute: true, Cores: 4})
	for _, want := range []string{"build --remote_executor=grpc://127.0.0.1:8980\n", "build --jobs=16\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %q in\n%s", want, text)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "build --") {
			t.Errorf("Bazel would not read the line %q", line)
		}
	}
	if text := Bazel(Endpoint{Execute: true, Cores: 4, Jobs: 40}); !strings.Contains(text, "build --jobs=40\n") {
		t.Errorf("the mesh has room for 40:\n%s", text)
	}
	cache := Bazel(Endpoint{Address: "127.0.0.1:8980"})
	if !strings.Contains(cache, "--remote_cache=grpc://127.0.0.1:8980") || strings.Contains(cache, "remote_executor") {
		t.Errorf("a cache only must not be asked to execute:\n%s", cache)
	}
}

func TestBuildStream(t *testing.T) {
	text := BuildStream(Endpoint{Address: "127.0.0.1:1", Execute: true}, "bst")
	if n := strings.Count(text, `url: "http://127.0.0.1:1", instance-name: bst`); n != 5 {
		t.Errorf("the endpoint stands %d times, want 5:\n%s", n, text)
	}
	if strings.Contains(BuildStream(Endpoint{Address: "127.0.0.1:1"}, "bst"), "remote-execution") {
		t.Error("a cache only must not be asked to execute")
	}
}

func TestDialable(t *testing.T) {
	for listened, want := range map[string]string{
		"127.0.0.1:8980": "127.0.0.1:8980",
		"0.0.0.0:8980":   "127.0.0.1:8980",
		"[::]:8980":      "127.0.0.1:8980",
		":8980":          "127.0.0.1:8980",
		"ana.local:1":    "ana.local:1",
		"[::1]:8980":     "[::1]:8980",
	} {
		if got := (Endpoint{Address: listened}).dialable(); got != want {
			t.Errorf("%s is dialled as %s, want %s", listened, got, want)
		}
	}
}
