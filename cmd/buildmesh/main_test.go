package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// answer is what one command gave.
type answer struct {
	status   int
	out, err string
}

// typed runs a command line as if typed by someone whose home is a new directory.
func typed(t *testing.T, args ...string) answer {
	t.Helper()
	var out, errOut bytes.Buffer
	status := run(args, verbContext{ctx: t.Context(), out: &out, errOut: &errOut, environ: []string{"HOME=" + t.TempDir()}})
	return answer{status, out.String(), errOut.String()}
}

func TestVerbs(t *testing.T) {
	for line, want := range map[string]answer{
		"":                                      {statusDone, "Usage: buildmesh <command>", ""},
		"--help":                                {statusDone, "Exit status: 0 done", ""},
		"version":                               {statusDone, "buildmesh unknown (go", ""},
		"config check":                          {statusDone, "configuration holds: 0 of ", ""},
		"config check --web :1":                 {statusDone, "configuration holds: 1 of ", ""},
		"config show --set exec.cores=3":        {statusDone, "flag --set", ""},
		"config show --toml":                    {statusDone, "# lease = \"10m\"", ""},
		"config check --set exec.core=3":        {statusUsage, "", "did you mean exec.cores?"},
		"config check --set exec.cores":         {statusUsage, "", "want KEY=VALUE"},
		"config check --config /nowhere/x.toml": {statusUsage, "", "/nowhere/x.toml"},
		"bazelrc --listen 127.0.0.1:77":         {statusDone, "build --remote_executor=grpc://127.0.0.1:77\n", ""},
		"bazelrc --set exec.enabled=false":      {statusDone, "build --remote_cache=grpc://127.0.0.1:8980\n", ""},
		"bazelrc --listen off":                  {statusUsage, "", "listen.grpc is off"},
		"bstplugin":                             {statusDone, "class MeshCasSource(Source):", ""},
		"bstplugin --install /nowhere":          {statusUsage, "", "no BuildStream project is there"},
		"bstconf --instance deep":               {statusDone, "instance-name: deep", ""},
		"cofig":                                 {statusUsage, "", "did you mean \"config\"?"},
		"version --colour":                      {statusUsage, "", "unknown flag --colour"},
	} {
		t.Run(line, func(t *testing.T) {
			got := typed(t, strings.Fields(line)...)
			if got.status != want.status || !strings.Contains(got.out, want.out) || !strings.Contains(got.err, want.err) {
				t.Errorf("status %d, want %d\nstdout: %s\nstderr: %s", got.status, want.status, got.out, got.err)
			}
			if (got.status == statusDone) != (got.err == "") {
				t.Errorf("status %d with stderr %q", got.status, got.err)
			}
		})
	}
}

// TestReadsNothingBeside makes sure that verbs that only print leave no trace.
func TestReadsNothingBeside(t *testing.T) {
	home := t.TempDir()
	var out bytes.Buffer
	for _, verb := range []string{"bazelrc", "bstconf", "version"} {
		run([]string{verb}, verbContext{ctx: t.Context(), out: &out, errOut: &out, environ: []string{"HOME=" + home}})
	}
	if left, _ := filepath.Glob(filepath.Join(home, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
