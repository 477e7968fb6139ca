package node

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/collect"
	"github.com/buildmesh/buildmesh/exec/flight"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// openPrivate opens what is not shared. A node that stands alone notes it too: it may join a mesh later.
func (n *Node) openPrivate(context.Context) error {
	rule, err := share.ParseRule(instances(n.config.Mesh.Instances), instances(n.config.Mesh.NoShare))
	if err != nil {
		return fmt.Errorf("mesh.no_share: %w", err)
	}
	if n.private, err = share.OpenPrivate(filepath.Join(n.config.Dir.Cache, "private"), rule, n.store); err != nil {
		return err
	}
	n.onClose("marks of private blobs", n.private.Close)
	if n.private.Damaged() {
		n.log.Warn("what of the store is private was damaged: all blobs in it are private now, until they are built or named again")
	}
	return nil
}

// within is the store as clients of an instance fill it.
func (n *Node) within(instance string) reapi.Blobs {
	switch {
	case !n.private.Active():
		return n.store
	case n.private.Instance(instance):
		return n.unnamed()
	}
	return share.Revealing{Whole: n.store, Private: n.private}
}

// unnamed is the store as what comes by no instance fills it: private until an instance that is shared names it.
func (n *Node) unnamed() share.Whole {
	if !n.private.Active() {
		return n.store
	}
	return share.Hiding{Whole: n.store, Private: n.private, Why: share.ByInstance}
}

// sharedBlobs is the store as the mesh, and what is shared with it, see and fill it.
type sharedBlobs interface {
	share.Whole
	Put(ctx context.Context, d digest.Digest, data []byte) error
}

// shared is the store as the mesh sees it.
func (n *Node) shared() sharedBlobs {
	if !n.private.Active() {
		return n.store
	}
	return share.Veiled{Whole: n.store, Private: n.private}
}

// judge tells whether an action is private, and why.
func (n *Node) judge(ctx context.Context, a *action.Action) (share.Reason, error) {
	outputs := make([]string, len(a.Outputs))
	for i, o := range a.Outputs {
		outputs[i] = o.Clean
	}
	return n.private.Judge(ctx, n.store, share.Action{Instance: a.Instance, InputRoot: a.InputRoot, Outputs: outputs})
}

// ownExecutor runs this node's own actions: what a private one writes is never visible to others.
type ownExecutor struct {
	node *Node
	into func(outputs collect.Blobs) flight.Executor
}

// Execute implements flight.Executor.
func (e ownExecutor) Execute(ctx context.Context, a *action.Action, o flight.Observer) (*flight.Outcome, error) {
	n := e.node
	var outputs share.Whole = n.shared()
	// An input root that cannot be read is a fault of the action's, which the run finds and tells as it must.
	if why, _ := n.judge(ctx, a); why != share.Shared {
		outputs = share.Hiding{Whole: n.store, Private: n.private, Why: why}
	}
	return e.into(runBlobs{outputs}).Execute(ctx, a, o)
}
