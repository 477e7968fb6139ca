package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// bazelRemoteModule is the version that the figures are held against.
const bazelRemoteModule = "github.com/buchgr/bazel-remote/v2@v2.4.4"

// fallbackModule builds the newest bazel-remote there is where the wanted version is not to be had. Its own requirements
// are raised to versions that module mirrors still have.
const fallbackModule = `module bench.invalid/bazel-remote

go 1.26.0

require (
	github.com/buchgr/bazel-remote/v2 v2.6.1
	google.golang.org/genproto/googleapis/api v0.0.0-20261012220534-4341edf3f941
	google.golang.org/genproto/googleapis/bytestream v0.0.0-20261005182115-fad411399dd8
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261104224025-d1e00e9f33ab
	google.golang.org/grpc v1.85.0
)
`

// findOther decides which server stands beside the node: the given or installed bazel-remote, one that can be
// installed now, else the kit's buildbox-casd, else none. The reason for anything but the first choice is
// part of the answer, because a table without it would mislead.
func findOther(ctx context.Context, binary, base string) (*launch, string) {
	if binary == "" {
		binary, _ = exec.LookPath("bazel-remote")
	}
	if binary != "" {
		l := bazelRemoteLaunch(binary)
		return &l, "bazel-remote is the binary given"
	}
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	base = filepath.Join(base, "other")
	if err := os.Mkdir(base, 0o755); err != nil {
		return nil, err.Error()
	}
	said, err := goCommand(ctx, base, "install", bazelRemoteModule)
	if err == nil {
		l := bazelRemoteLaunch(filepath.Join(base, "bazel-remote"))
		return &l, "bazel-remote is v2.4.4"
	}
	reason := "go install " + bazelRemoteModule + ": " + said
	if err := os.WriteFile(filepath.Join(base, "go.mod"), []byte(fallbackModule), 0o644); err == nil {
		if _, err := goCommand(ctx, base, "build", "-mod=mod", "-o", "bazel-remote", "github.com/buchgr/bazel-remote/v2"); err == nil {
			l := bazelRemoteLaunch(filepath.Join(base, "bazel-remote"))
			return &l, reason + "; bazel-remote is v2.6.1 with newer gRPC"
		}
	}
	kit := os.Getenv("BUILDMESH_CLIENTS")
	if kit == "" {
		kit = "/var/cache/buildmesh"
	}
	if _, err := os.Stat(filepath.Join(kit, "root.complete")); err != nil || os.Geteuid() != 0 {
		return nil, reason + "; and there is no buildbox-casd either: run testnet/clients/install as root"
	}
	l := casdLaunch(kit)
	return &l, reason + "; buildbox-casd stands in"
}

// goCommand runs the go command in dir, outside any other module, and returns the last line it printed.
func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOWORK=off")
	said, err := cmd.CombinedOutput()
	said = bytes.TrimSpace(said)
	return string(bytes.TrimSpace(said[bytes.LastIndexByte(said, '\n')+1:])), err
}

// casdLaunch starts BuildBox's storage daemon in the kit's root filesystem.
func casdLaunch(kit string) launch {
	return launch{
		name: "buildbox-casd", executes: true, binary: "testnet/clients/enter",
		args: func(dir, grpc, _ string) []string {
			return []string{filepath.Join(kit, "root"), dir, filepath.Join(kit, "src"),
				"buildbox-casd", "--bind=" + grpc, "--buildbox-run=/usr/bin/buildbox-run", "--jobs=2",
				"--cache-failures=false", "/w/store"}
		},
		env: func(_, _, _ string) []string { return nil },
	}
}
