package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// listDefault is how many results are listed unless more are asked for.
const listDefault = 100

// contentAnswers is the node as the command line asks it about shared results.
type contentAnswers struct {
	controlv1.UnimplementedContentServer
	node *Node
}

// content is the node's content, or why there is none.
func (a contentAnswers) content() (*content, error) {
	if a.node.content == nil {
		return nil, status.Error(codes.FailedPrecondition, "this node shares nothing: mesh.enabled is false")
	}
	return a.node.content, nil
}

// List implements controlv1.ContentServer.
func (a contentAnswers) List(ctx context.Context, q *controlv1.ListRequest) (*controlv1.ListResponse, error) {
	c, err := a.content()
	if err != nil {
		return nil, err
	}
	limit := int(q.Limit)
	if limit <= 0 {
		limit = listDefault
	}
	answer := &controlv1.ListResponse{}
	err = c.walk(func(k cid.Key, s receipt.Statement) error {
		if !strings.HasPrefix(s.Action.Hex(), q.Action) {
			return nil
		}
		if len(answer.Results) == limit {
			answer.More++
			return nil
		}
		one, err := c.signed(ctx, k, s)
		answer.Results = append(answer.Results, one)
		return err
	})
	if err == nil {
		err = a.name(ctx, answer.Results)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return answer, nil
}

// name adds what this node's clients called the actions of some results.
func (a contentAnswers) name(ctx context.Context, results []*controlv1.SignedResult) error {
	actions := make([]string, len(results))
	for i, r := range results {
		actions[i] = r.Action
	}
	if err := a.node.journal.Flush(ctx); err != nil {
		return err
	}
	named, err := a.node.journal.Named(actions...)
	for i, e := range named {
		results[i].About = strings.TrimSpace(e.GetMnemonic() + " " + e.GetTarget() + e.GetWords())
	}
	return err
}

// walk calls f for every receipt about this mesh, until it gives an error.
func (c *content) walk(f func(cid.Key, receipt.Statement) error) error {
	mesh := c.company.Load().mesh.String()
	return c.receipts.Keys(func(k cid.Key) error {
		raw, err := c.receipts.Raw([]cid.Key{k})
		if err != nil {
			return err
		}
		for _, one := range raw[0] {
			s, err := receipt.Peek(one)
			if err != nil || s.Mesh != mesh {
				continue
			}
			if err := f(k, s); err != nil {
				return err
			}
		}
		return nil
	})
}

// signed is a receipt as the control API tells of it.
func (c *content) signed(ctx context.Context, k cid.Key, s receipt.Statement) (*controlv1.SignedResult, error) {
	one := c.claim(s)
	_, err := c.node.results.cache.Get(ctx, actioncache.Key{Action: s.Action, Root: s.Root})
	one.Complete = err == nil
	if err != nil && !errors.Is(err, actioncache.ErrNotFound) {
		return one, err
	}
	for _, id := range c.company.Load().providers([]cid.Key{k})[0] {
		one.Providers = append(one.Providers, c.nameOf(id))
	}
	slices.Sort(one.Providers)
	return one, nil
}

// claim is what a receipt says.
func (c *content) claim(s receipt.Statement) *controlv1.SignedResult {
	r := s.Result
	return &controlv1.SignedResult{
		Action: s.Action.String(), Signer: c.nameOf(s.Executor), Completed: timestamppb.New(s.Completed), Tier: s.Tier,
		Outputs: int64(len(r.OutputFiles) + len(r.OutputDirectories) + len(r.OutputSymlinks)),
	}
}

// nameOf is what people call a peer.
func (c *content) nameOf(id peer.ID) string {
	if id == c.node.identity.ID() {
		return c.node.config.Node.Name
	}
	if m, found := c.node.mesh.presence.Roster.Now().Get(id); found && m.Name != "" {
		return m.Name
	}
	return id.Short()
}

// problems are what members said or sent that cannot be right, with what ends it.
func (c *content) problems() []*controlv1.Problem {
	var all []*controlv1.Problem
	evidence, err := c.receipts.Evidence()
	if err == nil && len(evidence) > 0 {
		all = append(all, &controlv1.Problem{Fix: "buildmesh cache disputes", Text: fmt.Sprintf(
			"members disagree about results, which are not taken from the mesh any more; actions concerned: %d", len(evidence))})
	}
	suspects := func(ids []peer.ID, format string, args ...any) {
		for _, name := range c.names(slices.Values(ids)) {
			all = append(all, &controlv1.Problem{Fix: "buildmesh revoke " + name, Text: name + " " + fmt.Sprintf(format, args...)})
		}
	}
	x := c.company.Load()
	suspects(x.liars(), "sent other bytes than it was asked for, which were thrown away; it is not asked again for %s; "+
		"its disk may be failing: run buildmesh cache verify there", human.Age(fetch.LieFor))
	suspects(x.lookup.Forgers(), "showed receipts that prove nothing; the results were not taken")
	suspects(x.summary.Peers.Muted(), "claims results that it does not have; what it claims is ignored for %s", human.Age(summary.MuteFor))
	suspects(c.guard.Refused(), "asked for more that is not here than any build does, as one that guesses digests; it was refused for a while")
	return all
}

// liars are those that sent other bytes than they were asked for, since the start.
func (x *company) liars() []peer.ID {
	var ids []peer.ID
	for _, f := range []*fetch.Fetcher{x.fetcher, x.copying} {
		for id, s := range f.Standings() {
			if s.Lies > 0 && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// Disputes implements controlv1.ContentServer.
func (a contentAnswers) Disputes(context.Context, *controlv1.DisputesRequest) (*controlv1.DisputesResponse, error) {
	c, err := a.content()
	if err != nil {
		return nil, err
	}
	evidence, err := c.receipts.Evidence()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer := &controlv1.DisputesResponse{}
	for _, e := range evidence {
		d := &controlv1.Dispute{}
		for _, r := range e.Receipts {
			d.Action = r.Action.String()
			d.Claims = append(d.Claims, c.claim(r.Statement))
		}
		d.Outputs = disputed(e.Receipts)
		answer.Disputes = append(answer.Disputes, d)
	}
	return answer, nil
}

// Absolve implements controlv1.ContentServer.
func (a contentAnswers) Absolve(_ context.Context, q *controlv1.AbsolveRequest) (*controlv1.AbsolveResponse, error) {
	c, err := a.content()
	if err != nil {
		return nil, err
	}
	if len(q.Action) < 4 {
		return nil, status.Error(codes.InvalidArgument, "say which action by at least four letters of its hash")
	}
	evidence, err := c.receipts.Evidence()
	answer := &controlv1.AbsolveResponse{}
	for _, e := range evidence {
		if err != nil || len(e.Receipts) == 0 || !strings.HasPrefix(e.Receipts[0].Action.Hex(), q.Action) {
			continue
		}
		s := e.Receipts[0].Statement
		err = errors.Join(c.receipts.Absolve(e.Key), c.node.results.cache.Delete(actioncache.Key{Action: s.Action, Root: s.Root}))
		answer.Absolved++
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return answer, nil
}

// disputed are the outputs that are not the same in all receipts.
func disputed(receipts []*receipt.Receipt) []string {
	var paths []string
	for _, r := range receipts[min(1, len(receipts)):] {
		for _, d := range receipt.Compare(receipts[0].Result, r.Result) {
			path := d.Path
			if path == "" {
				path = "exit code"
			}
			if !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return paths
}
