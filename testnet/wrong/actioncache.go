package wrong

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// inlineLimit bounds what is inlined into one result, in bytes.
const inlineLimit = 1 << 20

// key is the action's digest as results are filed under it.
func (s *Server) key(v repb.DigestFunction_Value, p *repb.Digest) (digest.Digest, error) {
	d, err := s.digest(v, p)
	if err != nil {
		return d, err
	}
	fn, size := d.Function(), d.Size()
	if s.has(ResultFunctionIgnored) {
		fn = digest.SHA256
	}
	if s.has(ResultSizeIgnored) {
		size = 1
	}
	return digest.New(fn, d.Hash(), size), nil
}

// GetActionResult gives a result all of whose blobs are there.
func (s *Server) GetActionResult(_ context.Context, req *repb.GetActionResultRequest) (*repb.ActionResult, error) {
	k, err := s.key(req.DigestFunction, req.ActionDigest)
	if err != nil {
		return nil, err
	}
	r, found := s.result(k)
	if !found && s.has(MissIsEmpty) {
		return &repb.ActionResult{}, nil
	}
	if !found {
		return nil, status.Errorf(codes.NotFound, "result of action %s", k)
	}
	return s.inline(r, k.Function(), req), nil
}

// result looks up a complete result and gives a copy.
func (s *Server) result(k digest.Digest) (*repb.ActionResult, bool) {
	s.mu.Lock()
	r, found := s.results[k]
	spoiled := s.spoiled[k]
	s.mu.Unlock()
	if !found || spoiled && s.has(IncompleteIsForgotten) {
		return nil, false
	}
	if !s.complete(k.Function(), r) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.spoiled[k] = true
		return nil, false
	}
	return proto.CloneOf(r), true
}

// UpdateActionResult files a result.
func (s *Server) UpdateActionResult(_ context.Context, req *repb.UpdateActionResultRequest) (*repb.ActionResult, error) {
	k, err := s.key(req.DigestFunction, req.ActionDigest)
	if err != nil {
		return nil, err
	}
	if req.ActionResult == nil {
		return nil, status.Error(codes.InvalidArgument, "action_result is missing")
	}
	r := proto.CloneOf(req.ActionResult)
	if r.ExecutionMetadata.GetWorker() == "" && !s.has(ResultServedEmpty) {
		if r.ExecutionMetadata == nil {
			r.ExecutionMetadata = &repb.ExecutedActionMetadata{}
		}
		r.ExecutionMetadata.Worker = "in-memory"
	}
	if s.has(ResultStripped) {
		r.OutputSymlinks = nil
		for _, f := range r.OutputFiles {
			f.IsExecutable = false
		}
	}
	s.file(k, r)
	return r, nil
}

// file keeps a result.
func (s *Server) file(k digest.Digest, r *repb.ActionResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.results[k]; kept && s.has(ResultKept) {
		return
	}
	s.results[k] = proto.CloneOf(r)
}

// complete reports whether every blob that r refers to is there.
func (s *Server) complete(fn digest.Function, r *repb.ActionResult) bool {
	for _, f := range r.OutputFiles {
		if !s.present(fn, f.Digest) && !s.has(HitWithAbsentFile) {
			return false
		}
	}
	for _, d := range r.OutputDirectories {
		if !s.treeComplete(fn, d) {
			return false
		}
	}
	if s.has(HitWithAbsentStdout) {
		return true
	}
	return (r.StdoutDigest == nil || s.present(fn, r.StdoutDigest)) && (r.StderrDigest == nil || s.present(fn, r.StderrDigest))
}

func (s *Server) present(fn digest.Function, p *repb.Digest) bool {
	d, err := digest.FromProto(fn, p)
	if err != nil {
		return false
	}
	_, found := s.get(d)
	return found
}

// treeComplete reports whether an output directory is there in each of the forms it names.
func (s *Server) treeComplete(fn digest.Function, o *repb.OutputDirectory) bool {
	var dirs []*repb.Directory
	if o.TreeDigest != nil {
		d, err := digest.FromProto(fn, o.TreeDigest)
		data, found := s.get(d)
		tree := &repb.Tree{}
		if err != nil || !found || proto.Unmarshal(data, tree) != nil {
			return s.has(HitWithAbsentTree)
		}
		dirs = append(tree.Children, tree.Root)
	}
	if o.RootDirectoryDigest != nil {
		d, err := digest.FromProto(fn, o.RootDirectoryDigest)
		if err != nil || !s.present(fn, o.RootDirectoryDigest) {
			return s.has(HitWithAbsentTree)
		}
		below, err := s.descend(d)
		if err != nil {
			return false
		}
		dirs = append(dirs, below...)
	}
	if s.has(HitWithAbsentTreeChildren) {
		return true
	}
	for _, dir := range dirs {
		for _, f := range dir.GetFiles() {
			if !s.present(fn, f.Digest) {
				return false
			}
		}
	}
	return true
}

// inline puts what the request asks for into r.
func (s *Server) inline(r *repb.ActionResult, fn digest.Function, req *repb.GetActionResultRequest) *repb.ActionResult {
	left := int64(inlineLimit)
	fill := func(p *repb.Digest, ask bool) []byte {
		d, err := digest.FromProto(fn, p)
		if err != nil || !ask && !s.has(InlinedUnasked) || d.Size() > left && !s.has(InlinedWithoutBound) {
			return nil
		}
		data, _ := s.get(d)
		left -= d.Size()
		return data
	}
	r.StdoutRaw = fill(r.StdoutDigest, req.InlineStdout)
	r.StderrRaw = fill(r.StderrDigest, req.InlineStderr)
	asked := map[string]bool{}
	for _, path := range req.InlineOutputFiles {
		asked[path] = true
	}
	for _, f := range r.OutputFiles {
		f.Contents = fill(f.Digest, asked[f.Path])
	}
	return r
}
