package node

import (
	"context"
	"fmt"
	"path/filepath"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"

	index "github.com/buildmesh/buildmesh/dht/asset"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/exec/journal"
	"github.com/buildmesh/buildmesh/node/asset"
	"github.com/buildmesh/buildmesh/node/bot"
	"github.com/buildmesh/buildmesh/node/bridge"
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
	if err := n.openBridge(dir, assets); err != nil {
		return err
	}
	o := asset.Options{Allowed: n.config.Asset.Allow, Origin: n.bridge}
	if n.config.Asset.Download {
		o.Dir = filepath.Join(dir, "downloads")
	}
	n.assets, err = asset.New(assets, n.unnamed(), o)
	if err != nil {
		return err
	}
	n.onClose("downloads", func() error { n.assets.Close(); return nil })
	return nil
}

// openBridge opens what answers the node's own URIs.
func (n *Node) openBridge(dir string, assets *index.Index) error {
	targets, err := bridge.OpenTargets(filepath.Join(dir, "targets"), bridge.TargetOptions{
		OnError: func(err error) { n.log.Warn("results are not noted for their targets", "err", err) },
	})
	if err != nil {
		return err
	}
	n.onClose("targets", targets.Close)
	n.bridge, err = bridge.New(bridge.Options{
		Assets: assets, Blobs: bridgeBlobs{n.unnamed(), n.store}, Results: bridgeResults{n}, Targets: targets, Dir: filepath.Join(dir, "tars"),
	})
	return err
}

// bridgeResults is the action results as the bridge asks for them, once the node is open.
type bridgeResults struct{ node *Node }

// Get implements bridge.Results.
func (b bridgeResults) Get(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	return b.node.clientResults().Get(ctx, action)
}

// notedResults is the action results of a client with a note, for the bridge and the journal, of each that passes by.
type notedResults struct {
	clientResults
	bridge  *bridge.Origin
	journal *journal.Journal
}

// Get implements reapi.Results.
func (r notedResults) Get(ctx context.Context, action digest.Digest) (*repb.ActionResult, error) {
	found, from, err := r.locate(ctx, action)
	if err == nil {
		r.bridge.Note(ctx, action, found)
		about := reapi.MetadataFrom(ctx)
		r.journal.Hit(journal.Hit{Action: action, From: from, Result: found, Meta: flight.Meta{
			Tool: about.Tool, Invocation: about.Invocation, ActionID: about.ActionID, Mnemonic: about.Mnemonic, Target: about.Target,
		}})
	}
	return found, err
}

// Put implements reapi.Results.
func (r notedResults) Put(ctx context.Context, action digest.Digest, result *repb.ActionResult) error {
	err := r.clientResults.Put(ctx, action, result)
	if err == nil {
		r.bridge.Note(ctx, action, result)
	}
	return err
}

// register adds every service beside storage to the endpoint.
func (n *Node) register() {
	to := n.endpoint.Registrar()
	logpb.RegisterLogStreamServiceServer(to, &logstream.Service{Streams: n.logs, Status: reapi.Status})
	n.assets.Register(to)
	if n.machine != nil {
		execution.Register(to, execution.Options{Flights: n.machine.flights, Blobs: n.store, Note: n.bridge.Note})
		if n.machine.bots != nil {
			bot.Register(to, n.machine.bots)
		}
	}
}
