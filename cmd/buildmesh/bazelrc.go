package main

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/buildmesh/buildmesh/node/clientconf"
	"github.com/buildmesh/buildmesh/node/config"
)

// bazelrcVerb is `buildmesh bazelrc`.
type bazelrcVerb struct{}

// Run prints lines for a .bazelrc.
func (bazelrcVerb) Run(v *verbContext) error {
	e, err := v.endpoint()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(v.out, clientconf.Bazel(e))
	return err
}

// endpoint is the configured node as clients see it.
func (v *verbContext) endpoint() (clientconf.Endpoint, error) {
	c, err := v.load()
	if err != nil {
		return clientconf.Endpoint{}, err
	}
	if c.Listen.GRPC == "" {
		return clientconf.Endpoint{}, usageError{errors.New("listen.grpc is off: the node has no port clients could use")}
	}
	return endpointOf(c), nil
}

// endpointOf is a configuration as clients see it.
func endpointOf(c *config.Config) clientconf.Endpoint {
	cores := c.Exec.Cores
	if cores == 0 {
		cores = runtime.NumCPU()
	}
	return clientconf.Endpoint{Address: c.Listen.GRPC, Execute: c.Exec.Enabled, Cores: cores}
}
