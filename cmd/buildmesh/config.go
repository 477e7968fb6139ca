package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/buildmesh/buildmesh/node/config"
)

// configVerb is `buildmesh config`.
type configVerb struct {
	Show  configShowVerb  `cmd:"" help:"Print every key, its value and where it came from."`
	Check configCheckVerb `cmd:"" help:"Say whether the configuration holds."`
}

// configShowVerb is `buildmesh config show`.
type configShowVerb struct {
	TOML bool `name:"toml" help:"Print a commented configuration file to start from."`
}

// Run prints the settled configuration.
func (c *configShowVerb) Run(v *verbContext) error {
	settled, err := v.load()
	if err != nil {
		return err
	}
	if c.TOML {
		_, err := fmt.Fprint(v.out, config.TOML(settled))
		return err
	}
	table := tabwriter.NewWriter(v.out, 0, 0, 2, ' ', 0)
	for _, k := range config.Keys() {
		value := k.Value(settled)
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", k.Name, value, settled.Origin(k.Name))
	}
	return table.Flush()
}

// configCheckVerb is `buildmesh config check`.
type configCheckVerb struct{}

// Run fails when the configuration does not hold.
func (configCheckVerb) Run(v *verbContext) error {
	settled, err := v.load()
	if err != nil {
		return err
	}
	changed := 0
	for _, k := range config.Keys() {
		if settled.Origin(k.Name).Kind != config.Default {
			changed++
		}
	}
	_, err = fmt.Fprintf(v.out, "configuration holds: %d of %d keys set\n", changed, len(config.Keys()))
	return err
}

// cut splits KEY=VALUE.
func cut(pair string) (key, value string, found bool) {
	key, value, found = strings.Cut(pair, "=")
	return strings.TrimSpace(key), value, found && key != ""
}
