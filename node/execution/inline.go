package execution

import (
	"context"
	"slices"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// fieldOverhead is what a bytes field costs beside its content, at most.
const fieldOverhead = 16

// Blobs is what inlining needs of a store.
type Blobs interface {
	// GetBatch fetches blobs; the element of one that is not there is nil.
	GetBatch(ctx context.Context, ds []digest.Digest) ([][]byte, error)
}

// wish is what a client asks to have inlined.
type wish struct {
	stdout, stderr bool
	files          []string // paths as in the Command
}

func (w wish) empty() bool { return !w.stdout && !w.stderr && len(w.files) == 0 }

// inline gives response, or a copy with what w asks for in it: stdout, stderr, then files in the order of
// the result, each if it still fits. What cannot be read is left out: it is only a hint.
func (s *Service) inline(ctx context.Context, fn digest.Function, w wish, response *repb.ExecuteResponse) *repb.ExecuteResponse {
	if w.empty() || response.Result == nil {
		return response
	}
	response = proto.CloneOf(response)
	result, left := response.Result, s.options.MaxInline-int64(proto.Size(response))
	var wanted []digest.Digest
	var places []*[]byte
	want := func(p *repb.Digest, place *[]byte) {
		d, err := digest.FromProto(fn, p)
		if err != nil || len(*place) > 0 || d.Size() > left-fieldOverhead {
			return
		}
		left -= d.Size() + fieldOverhead
		wanted, places = append(wanted, d), append(places, place)
	}
	if w.stdout {
		want(result.StdoutDigest, &result.StdoutRaw)
	}
	if w.stderr {
		want(result.StderrDigest, &result.StderrRaw)
	}
	for _, file := range result.OutputFiles {
		if slices.Contains(w.files, file.Path) {
			want(file.Digest, &file.Contents)
		}
	}
	data, err := s.options.Blobs.GetBatch(ctx, wanted)
	if err != nil {
		return response // the action is done; its client can still read by digest
	}
	for i, content := range data {
		*places[i] = content
	}
	return response
}
