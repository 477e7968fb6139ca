package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/buildmesh/buildmesh/testnet/sample"
)

// Subject is one server under measurement.
type Subject struct {
	Name     string
	Executes bool

	conn  *grpc.ClientConn
	cas   repb.ContentAddressableStorageClient
	ac    repb.ActionCacheClient
	bytes bytestream.ByteStreamClient
	exec  *sample.Client

	process *os.Process
	dir     string
}

// launch describes how to start a subject.
type launch struct {
	name     string
	executes bool
	binary   string
	args     func(dir, grpc, http string) []string
	env      func(dir, grpc, http string) []string
}

// nodeLaunch starts this project's node from a built binary.
func nodeLaunch(binary string) launch {
	return launch{
		name: "buildmesh", executes: true, binary: binary,
		args: func(_, _, _ string) []string { return []string{"up"} },
		env: func(dir, grpc, http string) []string {
			return []string{"BUILDMESH_DIR_BASE=" + dir, "BUILDMESH_LISTEN_GRPC=" + grpc, "BUILDMESH_LISTEN_WEB=" + http,
				"BUILDMESH_LISTEN_SOCKET=off", "BUILDMESH_LISTEN_MESH=127.0.0.1:0"}
		},
	}
}

// bazelRemoteName is what bazel-remote is called in reports.
const bazelRemoteName = "bazel-remote"

// bazelRemoteLaunch starts bazel-remote with its defaults.
func bazelRemoteLaunch(binary string) launch {
	return launch{
		name: bazelRemoteName, binary: binary,
		args: func(dir, grpc, http string) []string {
			return []string{"--dir", dir, "--max_size", "20", "--grpc_address", grpc, "--http_address", http,
				"--access_log_level", "none"}
		},
		env: func(_, _, _ string) []string { return nil },
	}
}

// start runs the server and waits until it answers, at most 30 s.
func (l launch) start(ctx context.Context, base string) (*Subject, error) {
	dir := filepath.Join(base, l.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	grpcAddress, err := freeAddress()
	if err != nil {
		return nil, err
	}
	httpAddress, err := freeAddress()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(base, l.name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(l.binary, l.args(dir, grpcAddress, httpAddress)...)
	cmd.Env = append(os.Environ(), l.env(dir, grpcAddress, httpAddress)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", l.name, err)
	}
	s, err := dial(ctx, l.name, grpcAddress)
	if err != nil {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%s: %w; it said: %s", l.name, err, said)
	}
	s.Executes, s.process, s.dir = l.executes, cmd.Process, dir
	return s, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String(), nil
}

// dial connects to a server that is starting and asks it for its capabilities.
func dial(ctx context.Context, name, address string) (*Subject, error) {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithInitialWindowSize(8<<20), grpc.WithInitialConnWindowSize(16<<20))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, err = repb.NewCapabilitiesClient(conn).GetCapabilities(ctx, &repb.GetCapabilitiesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("no answer: %w", err)
	}
	return &Subject{Name: name, conn: conn,
		cas: repb.NewContentAddressableStorageClient(conn), ac: repb.NewActionCacheClient(conn),
		bytes: bytestream.NewByteStreamClient(conn), exec: sample.On(conn)}, nil
}

// PeakMemory is the largest resident set of the server's process so far, in MiB; 0 where it cannot be read.
func (s *Subject) PeakMemory() float64 {
	if s.process == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				return 0
			}
			return kib / 1024
		}
	}
	return 0
}

// stop ends the server and removes what it stored.
func (s *Subject) stop() {
	_ = s.conn.Close()
	if s.process == nil { // not ours to end
		return
	}
	_ = s.process.Signal(syscall.SIGTERM)
	_, _ = s.process.Wait()
	_ = os.RemoveAll(s.dir)
}
