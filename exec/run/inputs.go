package run

import (
	"container/list"
	"context"
	"errors"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/stage"
)

// stage loads the input tree and makes its layers present.
func (e *execution) stage(ctx context.Context) (err error) {
	if err := e.useImage(ctx); err != nil {
		return err
	}
	inputs, err := e.load(ctx, e.action.InputRoot)
	if err == nil {
		e.tree, err = e.chroot(ctx, inputs)
	}
	if err != nil {
		return e.explain(ctx, err)
	}
	if e.image != nil {
		err = e.stageImage(ctx)
	} else {
		e.root, err = e.runner.stager.Stage(ctx, e.tree, modesOf(e.action))
	}
	if err != nil {
		return e.explain(ctx, err)
	}
	return nil
}

// load reads a tree, from memory when it was used lately.
func (e *execution) load(ctx context.Context, root digest.Digest) (*tree.Tree, error) {
	r := e.runner
	if known := r.trees.get(root); known != nil {
		return known, nil
	}
	t, err := tree.Load(ctx, r.blobs, root, r.opt.Tree)
	if err != nil {
		return nil, err
	}
	r.trees.put(t)
	return t, nil
}

// modesOf tells with which modes an action sees its input files. What builds in a root of its own writes to what it finds
// there, as on a system where it was installed.
func modesOf(a *action.Action) stage.Modes {
	if a.WholeRoot {
		return stage.Writable
	}
	return stage.ReadOnly
}

// explain turns errors about the input tree into those of exec/action. A missing blob becomes the list
// of everything that is missing, directories and files.
func (e *execution) explain(ctx context.Context, err error) error {
	if errors.Is(err, tree.ErrInvalid) {
		return &action.InvalidError{Field: "input_root_digest", Reason: err.Error()}
	}
	lost, ok := errors.AsType[*tree.MissingError](err)
	if !ok {
		return err
	}
	missing, listErr := action.MissingInputs(ctx, e.runner.blobs, e.action.InputRoot)
	if listErr != nil {
		missing = nil // what is known already is better than nothing
	}
	if root, err := digest.ParseString(e.action.Digest.Function(), e.action.Platform.ChrootRoot); err == nil {
		below, _ := action.MissingInputs(ctx, e.runner.blobs, root)
		missing = append(missing, below...)
	}
	seen := map[digest.Digest]bool{}
	all := &action.MissingError{}
	for _, d := range append(missing, lost.Digests...) {
		if !seen[d] {
			seen[d] = true
			all.Digests = append(all.Digests, d)
		}
	}
	return all
}

// trees keeps the trees used last, bounded by their nodes, so that a known input root is not
// read and decoded again. Trees are immutable and stay right however the store changes.
type trees struct {
	limit int64

	mu    sync.Mutex // guards what follows
	known map[digest.Digest]*list.Element
	order *list.List // of *tree.Tree, the least recently used first
	size  int64
}

func newTrees(limit int64) *trees {
	return &trees{limit: limit, known: map[digest.Digest]*list.Element{}, order: list.New()}
}

func (t *trees) get(d digest.Digest) *tree.Tree {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.known[d]
	if e == nil {
		return nil
	}
	t.order.MoveToBack(e)
	return e.Value.(*tree.Tree)
}

func (t *trees) put(tr *tree.Tree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[tr.Digest()] != nil || weight(tr) > t.limit {
		return
	}
	t.known[tr.Digest()] = t.order.PushBack(tr)
	t.size += weight(tr)
	for t.size > t.limit {
		oldest := t.order.Remove(t.order.Front()).(*tree.Tree)
		delete(t.known, oldest.Digest())
		t.size -= weight(oldest)
	}
}

// weight is what a tree counts: its nodes, expanded, which is what running with it costs.
func weight(tr *tree.Tree) int64 { return tr.Root().Totals().Nodes }
