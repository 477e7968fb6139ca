package embedded

import (
	"embed"
	"runtime"
)

//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -ldflags "-s -w" -o shim_linux_amd64 ../shim
//go:generate env CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -trimpath -ldflags "-s -w" -o shim_linux_arm64 ../shim

// files always holds doc.go, so that the pattern matches before the programs are built.
//
//go:embed doc.go shim*
var files embed.FS

// Shim gives the init program for this machine, or false when the node was built without it.
func Shim() ([]byte, bool) {
	program, err := files.ReadFile("shim_" + runtime.GOOS + "_" + runtime.GOARCH)
	return program, err == nil && len(program) > 0
}
