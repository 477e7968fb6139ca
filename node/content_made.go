package node

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/tree"
	"github.com/buildmesh/buildmesh/mesh/peer"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// shares are who has to do with some of the results known here.
type shares struct {
	results, alone int64
	signed         map[peer.ID]int64
	provided       map[peer.ID]int64 // by others
}

// providers says without asking anyone who else has results, at any site.
func (x *company) providers(keys []cid.Key) [][]peer.ID {
	return x.noting(x.summary.Peers.Find(keys), keys)
}

// shares counts the results that are wanted.
func (c *content) shares(wanted func(receipt.Statement) bool) (shares, error) {
	s := shares{signed: map[peer.ID]int64{}, provided: map[peer.ID]int64{}}
	keys := map[cid.Key]struct{}{}
	err := c.walk(func(k cid.Key, one receipt.Statement) error {
		if wanted(one) {
			s.signed[one.Executor]++
			keys[k] = struct{}{}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	s.results = int64(len(keys))
	for _, ids := range c.company.Load().providers(slices.Collect(maps.Keys(keys))) {
		if len(ids) == 0 {
			s.alone++
		}
		for _, id := range ids {
			s.provided[id]++
		}
	}
	return s, nil
}

// names are what people call some peers, in order.
func (c *content) names(ids iter.Seq[peer.ID]) []string {
	var all []string
	for id := range ids {
		all = append(all, c.nameOf(id))
	}
	slices.Sort(all)
	return all
}

// Sharing implements controlv1.ContentServer.
func (a contentAnswers) Sharing(context.Context, *controlv1.SharingRequest) (*controlv1.SharingResponse, error) {
	c, err := a.content()
	if err != nil {
		return nil, err
	}
	s, err := c.shares(func(receipt.Statement) bool { return true })
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer := &controlv1.SharingResponse{Results: s.results, Alone: s.alone}
	members := maps.Clone(s.signed)
	maps.Copy(members, s.provided)
	for id := range members {
		answer.Members = append(answer.Members, &controlv1.MemberShare{Name: c.nameOf(id), Signed: s.signed[id], Provided: s.provided[id]})
	}
	slices.SortFunc(answer.Members, func(a, b *controlv1.MemberShare) int { return cmp.Compare(a.Name, b.Name) })
	return answer, nil
}

// Pin implements controlv1.ContentServer.
func (a contentAnswers) Pin(ctx context.Context, q *controlv1.PinRequest) (*controlv1.PinResponse, error) {
	root, err := a.node.bridge.Find(ctx, q.Name)
	if err == nil {
		err = a.node.bridge.Adopt(ctx, "", root)
	}
	var invalid *tree.InvalidError
	if errors.As(err, &invalid) {
		return nil, status.Errorf(codes.InvalidArgument, "%s is not the root of a tree, as the input root of an action is: %s", root.Short(), invalid.Reason)
	}
	if err != nil {
		return nil, archiveError(err)
	}
	answer := &controlv1.PinResponse{Root: root.String()}
	if a.node.content == nil {
		return answer, nil
	}
	s, err := a.node.content.sharesOf(ctx, root)
	if err != nil {
		return nil, archiveError(err)
	}
	answer.Signers, answer.Providers = a.node.content.names(maps.Keys(s.signed)), a.node.content.names(maps.Keys(s.provided))
	return answer, nil
}

// sharesOf counts the results that a tree consists of: those with an output that is a file of it.
func (c *content) sharesOf(ctx context.Context, root digest.Digest) (shares, error) {
	t, err := tree.Load(ctx, c.node.store, root, tree.Limits{})
	if err != nil {
		return shares{}, err
	}
	files := map[string]bool{}
	for _, d := range t.Files() {
		files[d.Hex()] = true
	}
	return c.shares(func(s receipt.Statement) bool {
		return slices.ContainsFunc(s.Result.GetOutputFiles(), func(f *repb.OutputFile) bool { return files[strings.ToLower(f.GetDigest().GetHash())] })
	})
}
