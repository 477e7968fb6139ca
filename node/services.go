package node

import (
	"context"
	"fmt"
	"path/filepath"

	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/node/asset"
	"github.com/buildmesh/buildmesh/node/execution"
	"github.com/buildmesh/buildmesh/node/logstream"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// openLogs opens the log streams.
func (n *Node) openLogs(context.Context) error {
	logs, err := logstream.Open(logstream.Options{Dir: filepath.Join(n.config.Dir.Cache, "logs")})
	if err != nil {
		return fmt.Errorf("open log streams: %w", err)
	}
	n.logs = logs
	n.onClose("log streams", logs.Close)
	return nil
}

// openAssets opens what content is known by names, and the service that fetches it. Assets keep their
// content from eviction, so they may take half of the store and no more.
func (n *Node) openAssets(context.Context) error {
	dir := filepath.Join(n.config.Dir.Cache, "assets")
	assets, err := index.Open(filepath.Join(dir, "index"), n.store, index.Options{MaxBytes: n.store.Stat().MaxBytes / 2})
	if err != nil {
		return err
	}
	n.onClose("assets", assets.Close)
	o := asset.Options{Allowed: n.config.Asset.Allow}
	if n.config.Asset.Download {
		o.Dir = filepath.Join(dir, "downloads")
	}
	n.assets, err = asset.New(assets, n.store, o)
	if err != nil {
		return err
	}
	n.onClose("downloads", func() error { n.assets.Close(); return nil })
	return nil
}

// register adds every service beside storage to the endpoint.
func (n *Node) register() {
	to := n.endpoint.Registrar()
	logpb.RegisterLogStreamServiceServer(to, &logstream.Service{Streams: n.logs, Status: reapi.Status})
	n.assets.Register(to)
	if n.machine != nil {
		execution.Register(to, execution.Options{Flights: n.machine.flights, Blobs: n.store})
	}
}
