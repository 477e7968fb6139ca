package reapi

import (
	"context"
	"errors"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
)

// resultService serves ActionCache.
type resultService struct {
	repb.UnsafeActionCacheServer
	results Results
	blobs   Blobs
	limits  Limits
	closed  bool   // refuses updates
	name    string // of this node, for results that name no executor
}

// GetActionResult implements ActionCache. A hit is complete by the promise of Results; what the
// client asks to have inlined is, as long as it fits a message.
func (s *resultService) GetActionResult(ctx context.Context, q *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	action, err := s.action(q.InstanceName, q.DigestFunction, q.ActionDigest)
	if err != nil {
		return nil, err
	}
	result, err := s.results.Get(ctx, action)
	if errors.Is(err, cas.ErrNotFound) {
		return nil, missStatus(err)
	}
	if err != nil {
		return nil, err
	}
	if q.InlineStdout || q.InlineStderr || len(q.InlineOutputFiles) > 0 {
		return s.inline(ctx, q, action.Function(), result)
	}
	return result, nil
}

// errReadOnly refuses updates where they are not advertised.
var errReadOnly = &DeniedError{Reason: "action results are read-only at this endpoint"}

// UpdateActionResult implements ActionCache for results that a client made itself.
func (s *resultService) UpdateActionResult(ctx context.Context, q *repb.UpdateActionResultRequest) (*repb.ActionResult, error) {
	action, err := s.action(q.InstanceName, q.DigestFunction, q.ActionDigest)
	if err != nil {
		return nil, err
	}
	result := q.ActionResult
	switch {
	case s.closed:
		return nil, errReadOnly
	case result == nil:
		return nil, invalid("action_result", "is missing")
	case result.ExitCode != 0:
		return nil, invalid("action_result.exit_code", "%d: only successful results are cached", result.ExitCode)
	}
	if result.ExecutionMetadata.GetWorker() == "" {
		// A result that serialises to nothing could not be told from none.
		result = proto.CloneOf(result)
		if result.ExecutionMetadata == nil {
			result.ExecutionMetadata = &repb.ExecutedActionMetadata{}
		}
		result.ExecutionMetadata.Worker = s.name
	}
	if err := s.results.Put(ctx, action, result); err != nil {
		return nil, err
	}
	return result, nil
}

// action validates the fields that both calls have.
func (s *resultService) action(instance string, fv repb.DigestFunction_Value, p *repb.Digest) (digest.Digest, error) {
	if err := CheckInstance(instance); err != nil {
		return digest.Digest{}, err
	}
	fn, err := function(fv)
	if err != nil {
		return digest.Digest{}, err
	}
	return digestField("action_digest", fn, p)
}

// inline gives a copy of result with the content that q asks for: stdout, stderr, then files in the
// order of the result, each if it still fits. What cannot be read is left out: it is only a hint.
func (s *resultService) inline(ctx context.Context, q *repb.GetActionResultRequest, fn digest.Function, result *repb.ActionResult) (*repb.ActionResult, error) {
	result = proto.CloneOf(result)
	left := s.limits.MaxBatch - int64(proto.Size(result))
	var wanted []digest.Digest
	var places []*[]byte
	want := func(p *repb.Digest, place *[]byte) {
		d, err := digest.FromProto(fn, p)
		if err != nil || len(*place) > 0 || d.Size() > left-maxDigestField {
			return
		}
		left -= d.Size() + maxDigestField
		wanted, places = append(wanted, d), append(places, place)
	}
	if q.InlineStdout {
		want(result.StdoutDigest, &result.StdoutRaw)
	}
	if q.InlineStderr {
		want(result.StderrDigest, &result.StderrRaw)
	}
	asked := make(map[string]bool, len(q.InlineOutputFiles))
	for _, path := range q.InlineOutputFiles {
		asked[path] = true
	}
	for _, file := range result.OutputFiles {
		if asked[file.Path] {
			want(file.Digest, &file.Contents)
		}
	}
	if len(wanted) == 0 {
		return result, nil
	}
	data, err := s.blobs.GetBatch(ctx, wanted)
	if err != nil {
		return nil, err
	}
	for i, b := range data {
		*places[i] = b
	}
	return result, nil
}
