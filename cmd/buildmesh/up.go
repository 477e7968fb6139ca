package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/buildmesh/buildmesh/node"
	"github.com/buildmesh/buildmesh/node/clientconf"
	"github.com/buildmesh/buildmesh/node/config"
)

// upVerb is `buildmesh up`.
type upVerb struct{}

// Run runs a node until a signal or the end of the context; a second signal does not wait.
func (upVerb) Run(v *verbContext) error {
	c, err := v.load()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 2) // from here on, so that none that comes early kills the process
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	ctx, cancel := context.WithCancel(v.ctx)
	defer cancel()
	n, err := v.open(ctx, c, signals, cancel)
	if err != nil {
		return err
	}
	if err := v.greet(n); err != nil {
		n.Close()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-signals:
			if ctx.Err() != nil {
				n.Hurry()
				continue
			}
			fmt.Fprintf(v.errOut, "draining for at most %s; interrupt again to stop at once\n", c.Node.Drain)
			cancel()
		}
	}
}

// open makes the node; a signal meanwhile cancels that.
func (v *verbContext) open(ctx context.Context, c *config.Config, signals <-chan os.Signal, cancel func()) (n *node.Node, err error) {
	opened := make(chan struct{})
	go func() {
		defer close(opened)
		n, err = node.New(ctx, c, logger(c.Log, v.errOut), version)
	}()
	select {
	case <-opened:
		return n, err
	case <-signals:
	}
	cancel()
	<-opened
	if err == nil {
		err = errors.Join(errors.New("interrupted while starting"), n.Close())
	}
	return nil, err
}

// greet prints where the node answers and what a .bazelrc needs.
func (v *verbContext) greet(n *node.Node) error {
	s := n.Snapshot()
	keep := map[string]bool{"node": true, "mesh": true, "endpoint": true, "socket": true, "web": true, "sandbox": true, "store": true}
	var rows []string
	for _, row := range statusRows(s) {
		if label, _, _ := strings.Cut(row, "\t"); keep[label] {
			rows = append(rows, row)
		}
	}
	if err := v.table(rows); err != nil {
		return err
	}
	if s.GrpcAddress == "" {
		return nil
	}
	_, err := fmt.Fprintf(v.out, "\n%s\n", clientconf.Bazel(clientconf.Endpoint{
		Address: s.GrpcAddress, Execute: s.Sandbox.GetTier() != "" && s.Sandbox.GetTier() != "D", Cores: int(s.Slots.GetCores()),
	}))
	return err
}

// logger writes to out as the configuration says.
func logger(c config.Log, out io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // config admits only the four names
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
