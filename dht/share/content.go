package share

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/onehop"
	"github.com/buildmesh/buildmesh/dht/summary"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// maxResults is how many keys one Results call may ask for, and maxAnswer how many bytes of receipts it
// gives; keys beyond that are answered with nothing.
const (
	maxResults = 1024
	maxAnswer  = 3 << 20
)

// Answer is what is known here about one key.
type Answer struct {
	Receipts [][]byte  // exact bytes; none where only Holders is known
	Complete bool      // every blob of the first of them is here
	Holders  []peer.ID // others known to have them
}

// Results tells what is known about action results.
type Results interface {
	// Answers gives as many answers as keys. What is private is not known.
	Answers(ctx context.Context, keys []cid.Key) ([]Answer, error)
}

// Keeper takes copies of what other members made.
type Keeper interface {
	// Keep tells for each key whether its result is here, after it tried to have it; refused is why it did
	// not try.
	Keep(ctx context.Context, from peer.ID, keys []cid.Key) (kept []bool, refused, err error)
}

// maxKeep is how many keys one Keep call may name.
const maxKeep = 256

// Content serves members what this node knows about content. All fields but Keeper and Bridge must be set.
type Content struct {
	contentv1.UnsafeContentServer
	Guard     *Guard
	Publisher *summary.Publisher
	Index     *onehop.Index
	OneHop    *onehop.Locator
	Known     Results
	Keeper    Keeper          // nil: no copies are taken
	Bridge    *summary.Bridge // nil: there are no sites
}

// Register adds the service to a gRPC server.
func (s *Content) Register(to grpc.ServiceRegistrar) { contentv1.RegisterContentServer(to, s) }

// Summary implements Content.
func (s *Content) Summary(q *contentv1.SummaryRequest, stream grpc.ServerStreamingServer[contentv1.SummaryPart]) error {
	if _, err := s.Guard.Admit(stream.Context()); err != nil {
		return err
	}
	if !q.Site {
		return s.Publisher.Follow(stream.Context(), q, stream.Send)
	}
	err := summary.ErrNoBridge
	switch {
	case len(q.Of) != 0 && len(q.Of) != len(peer.ID{}):
		return status.Errorf(codes.InvalidArgument, "a peer id of %d bytes", len(q.Of))
	case s.Bridge == nil:
	case len(q.Of) != 0:
		err = s.Bridge.Relay(stream.Context(), peer.ID(q.Of), q, stream.Send)
	default:
		err = s.Bridge.Follow(stream.Context(), q, stream.Send)
	}
	if errors.Is(err, summary.ErrNoBridge) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}

// keys validates the keys of a call.
func keys(raw [][]byte, limit int) ([]cid.Key, error) {
	if len(raw) > limit {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d keys", limit)
	}
	all := make([]cid.Key, len(raw))
	for i, b := range raw {
		if len(b) != cid.KeySize {
			return nil, status.Errorf(codes.InvalidArgument, "a key of %d bytes", len(b))
		}
		all[i] = cid.Key(b)
	}
	return all, nil
}

// Results implements Content.
func (s *Content) Results(ctx context.Context, q *contentv1.ResultsRequest) (*contentv1.ResultsResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	all, err := keys(q.Keys, maxResults)
	if err != nil {
		return nil, err
	}
	known, err := s.Known.Answers(ctx, all)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the receipts cannot be read")
	}
	r := &contentv1.ResultsResponse{Answers: make([]*contentv1.Answer, len(all))}
	bytes, missed := 0, 0
	for i, a := range known {
		r.Answers[i] = &contentv1.Answer{}
		if len(a.Receipts) == 0 && len(a.Holders) == 0 {
			missed++
			continue
		}
		for _, raw := range a.Receipts {
			if bytes+len(raw) <= maxAnswer {
				bytes += len(raw)
				r.Answers[i].Receipts = append(r.Answers[i].Receipts, raw)
			}
		}
		r.Answers[i].Complete = a.Complete
		r.Answers[i].Holders = wirePeers(a.Holders)
	}
	s.Guard.Missed(id, missed)
	return r, nil
}

func wirePeers(ids []peer.ID) [][]byte {
	raw := make([][]byte, len(ids))
	for i := range ids {
		raw[i] = ids[i][:]
	}
	return raw
}

// Announce implements Content.
func (s *Content) Announce(ctx context.Context, q *contentv1.AnnounceRequest) (*contentv1.AnnounceResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	all, err := keys(q.Keys, locate.MaxBatch)
	if err != nil {
		return nil, err
	}
	s.Index.Note(id, all, time.Now())
	return &contentv1.AnnounceResponse{}, nil
}

// Forget implements Content.
func (s *Content) Forget(ctx context.Context, q *contentv1.ForgetRequest) (*contentv1.ForgetResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	all, err := keys(q.Keys, locate.MaxBatch)
	if err != nil {
		return nil, err
	}
	s.Index.Forget(id, all)
	return &contentv1.ForgetResponse{}, nil
}

// Find implements Content.
func (s *Content) Find(ctx context.Context, q *contentv1.FindRequest) (*contentv1.FindResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	all, err := keys(q.Keys, locate.MaxBatch)
	if err != nil {
		return nil, err
	}
	r := &contentv1.FindResponse{Found: make([]*contentv1.Providers, len(all))}
	missed := 0
	for i, ids := range s.Index.Find(id, all) {
		r.Found[i] = &contentv1.Providers{Peers: wirePeers(ids)}
		if len(ids) == 0 {
			missed++
		}
	}
	s.Guard.Missed(id, missed)
	return r, nil
}

// Reconcile implements Content.
func (s *Content) Reconcile(ctx context.Context, q *contentv1.ReconcileRequest) (*contentv1.ReconcileResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	r, now := &contentv1.ReconcileResponse{}, time.Now()
	for _, d := range s.OneHop.Differences(id, q.Sums) {
		r.Noted = append(r.Noted, &contentv1.Noted{Key: d.Key[:], Peer: d.Peer[:], AgeMillis: now.Sub(d.At).Milliseconds()})
	}
	return r, nil
}

// Keep implements Content.
func (s *Content) Keep(ctx context.Context, q *contentv1.KeepRequest) (*contentv1.KeepResponse, error) {
	id, err := s.Guard.Admit(ctx)
	if err != nil {
		return nil, err
	}
	all, err := keys(q.Keys, maxKeep)
	if err != nil {
		return nil, err
	}
	if s.Keeper == nil {
		return &contentv1.KeepResponse{Kept: make([]bool, len(all)), Reason: "no copies are taken here"}, nil
	}
	kept, refused, err := s.Keeper.Keep(ctx, id, all)
	if err != nil {
		return nil, failure(err)
	}
	r := &contentv1.KeepResponse{Kept: kept}
	if refused != nil {
		r.Reason = refused.Error()
	}
	return r, nil
}
