package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/buildmesh/buildmesh/node/clientconf"
	"github.com/buildmesh/buildmesh/node/config"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// bazelrcVerb is `buildmesh bazelrc`.
type bazelrcVerb struct{}

// Run prints lines for a .bazelrc.
func (bazelrcVerb) Run(v *verbContext) error {
	e, err := v.endpoint()
	if err != nil {
		return err
	}
	e.Jobs = v.meshJobs()
	_, err = fmt.Fprint(v.out, clientconf.Bazel(e))
	return err
}

// meshJobs is what the running node knows of the mesh's room; 0 when none runs, or it is alone.
func (v *verbContext) meshJobs() int {
	client, err := v.dial()
	if err != nil {
		return 0
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(v.ctx, topWait)
	defer cancel()
	answer, err := client.Journal.Jobs(ctx, &controlv1.JobsRequest{})
	if err != nil || len(answer.Machines) < 2 {
		return 0
	}
	return int(answer.Jobs)
}

// endpoint is the node as clients see it: where the running one listens, which may have been started with other flags,
// else what is configured.
func (v *verbContext) endpoint() (clientconf.Endpoint, error) {
	c, err := v.load()
	if err != nil {
		return clientconf.Endpoint{}, err
	}
	if c.Listen.GRPC == "" {
		return clientconf.Endpoint{}, usageError{errors.New("listen.grpc is off: the node has no port clients could use")}
	}
	e := endpointOf(c)
	if running := v.running(); running.GetGrpcAddress() != "" && v.settings.Listen == "" {
		e.Address, e.Execute = running.GrpcAddress, running.GetSandbox().GetTier() != ""
	}
	return e, nil
}

// running is the status of the running node; nil when none answers.
func (v *verbContext) running() *controlv1.StatusResponse {
	client, err := v.dial()
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(v.ctx, topWait)
	defer cancel()
	status, err := client.Status(ctx, &controlv1.StatusRequest{})
	if err != nil {
		return nil
	}
	return status
}

// endpointOf is a configuration as clients see it.
func endpointOf(c *config.Config) clientconf.Endpoint {
	cores := c.Exec.Cores
	if cores == 0 {
		cores = runtime.NumCPU()
	}
	return clientconf.Endpoint{Address: c.Listen.GRPC, Execute: c.Exec.Enabled, Cores: cores}
}
