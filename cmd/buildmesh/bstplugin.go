package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/buildmesh/buildmesh/node/bridge"
)

// bstpluginVerb is `buildmesh bstplugin`.
type bstpluginVerb struct {
	Install string `placeholder:"PROJECT" help:"Write it into the folder plugins of this BuildStream project instead of printing it."`
}

// Run prints the plugin, or installs it and prints what is left to do.
func (b *bstpluginVerb) Run(v *verbContext) error {
	if b.Install == "" {
		_, err := v.out.Write(bridge.Plugin)
		return err
	}
	if _, err := os.Stat(filepath.Join(b.Install, "project.conf")); err != nil {
		return usageError{fmt.Errorf("--install %s: no BuildStream project is there: %w", b.Install, err)}
	}
	path := filepath.Join(b.Install, "plugins", bridge.PluginFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, bridge.Plugin, 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(v.out, "# wrote %s; project.conf needs:\n%s", path, bridge.PluginConf)
	return err
}
