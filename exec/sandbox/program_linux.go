package sandbox

import (
	"fmt"
	"os"

	"github.com/buildmesh/buildmesh/exec/sandbox/embedded"
	"golang.org/x/sys/unix"
)

// program is the executable that becomes init.
type program struct {
	file *os.File // keeps the path alive; nil for the node's own binary
	path string
	kind string // "embedded" or "node"
}

// openProgram gives the embedded init program as a sealed file in memory, which no action can ever write to and which
// needs no directory that permits execution; without one, the node's own binary.
func openProgram() (*program, error) {
	code, ok := embedded.Shim()
	if !ok {
		return &program{path: "/proc/self/exe", kind: "node"}, nil
	}
	fd, err := unix.MemfdCreate("buildmesh-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3 every such file is executable, and the flag is unknown
		fd, err = unix.MemfdCreate("buildmesh-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return &program{path: "/proc/self/exe", kind: "node"}, nil
	}
	file := os.NewFile(uintptr(fd), "buildmesh-init")
	if _, err := file.Write(code); err != nil {
		return nil, fmt.Errorf("write init program: %w", err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal init program: %w", err)
	}
	return &program{file: file, path: fmt.Sprintf("/proc/self/fd/%d", fd), kind: "embedded"}, nil
}

func (p *program) close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}
