package wrong

import (
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// resource is a resource name of ByteStream, taken apart.
type resource struct {
	upload     string // "uploads/{uuid}" of a write
	compressed bool   // by zstd, the one compressor here
	digest     digest.Digest
}

// reserved are the words no segment of an instance name equals.
func reserved() []string {
	return []string{"blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"}
}

func (s *Server) checkInstance(name string) error {
	for segment := range strings.SplitSeq(name, "/") {
		if slices.Contains(reserved(), segment) && !s.has(ReservedInstanceAccepted) {
			return status.Errorf(codes.InvalidArgument, "instance name %q contains the reserved word %s", name, segment)
		}
	}
	return nil
}

// parse takes a resource name apart; write says which of the forms is expected.
func (s *Server) parse(name string, write bool) (resource, error) {
	r, err := s.parseForm(name, write)
	if err != nil && s.has(MalformedNameIsInternal) {
		return r, status.Errorf(codes.Internal, "resource name %q", name)
	}
	return r, err
}

func (s *Server) parseForm(name string, write bool) (resource, error) {
	bad := func(why string) (resource, error) {
		return resource{}, status.Errorf(codes.InvalidArgument, "resource name %q: %s", name, why)
	}
	segments := strings.Split(name, "/")
	at := slices.IndexFunc(segments, func(w string) bool { return slices.Contains(reserved(), w) })
	if at < 0 {
		return bad("has none of blobs, compressed-blobs and uploads")
	}
	if s.has(OneSegmentInstances) && at > 1 {
		return bad("has an instance name of several segments")
	}
	segments = segments[at:]
	var r resource
	if write {
		if len(segments) < 3 || segments[0] != "uploads" {
			return bad("is no upload")
		}
		r.upload = "uploads/" + segments[1]
		segments = segments[2:]
	}
	form := segments[0]
	segments = segments[1:]
	switch {
	case form == "compressed-blobs" && len(segments) > 0 && segments[0] == "zstd":
		r.compressed, segments = true, segments[1:]
	case form == "compressed-blobs" && len(segments) > 0 && segments[0] == "identity" && s.has(IdentitySegmentAccepted):
		segments = segments[1:]
	case form == "compressed-blobs" && len(segments) > 0 && s.has(UnknownCompressorPlain):
		segments = segments[1:]
	case form != "blobs":
		return bad("is no blob, or of a compressor that is not advertised")
	}
	return s.parseDigest(r, segments, write)
}

// parseDigest reads {function/}{hash}/{size} and what follows it.
func (s *Server) parseDigest(r resource, segments []string, write bool) (resource, error) {
	fn := repb.DigestFunction_UNKNOWN
	if len(segments) > 0 && segments[0] == "blake3" && !s.has(FunctionSegmentRefused) {
		fn, segments = repb.DigestFunction_BLAKE3, segments[1:]
	}
	if len(segments) < 2 {
		return r, status.Error(codes.InvalidArgument, "resource name ends before the size")
	}
	if len(segments) == 2 && write && s.has(UnfinishedNameRefused) {
		return r, status.Error(codes.InvalidArgument, "resource name ends with the size")
	}
	if len(segments) > 2 && !write && !s.has(TrailingReadAccepted) || len(segments) > 2 && s.has(TrailingNameRefused) {
		return r, status.Error(codes.InvalidArgument, "resource name goes on after the size")
	}
	size, err := digest.ParseSize(segments[1])
	if err != nil {
		return r, status.Error(codes.InvalidArgument, err.Error())
	}
	r.digest, err = s.digest(fn, &repb.Digest{Hash: segments[0], SizeBytes: size})
	return r, err
}

// digest validates p, made by the function the request names.
func (s *Server) digest(v repb.DigestFunction_Value, p *repb.Digest) (digest.Digest, error) {
	if v == repb.DigestFunction_UNKNOWN && s.has(FunctionRequired) {
		return digest.Digest{}, status.Error(codes.InvalidArgument, "no digest function")
	}
	fn, err := digest.FunctionFromProto(v)
	if err != nil && !s.has(ForeignFunctionAccepted) {
		return digest.Digest{}, status.Error(codes.InvalidArgument, err.Error())
	}
	hash := p.GetHash()
	if s.has(UppercaseAccepted) {
		hash = strings.ToLower(hash)
	}
	if missing := digest.HexSize - len(hash); s.has(ShortHashAccepted) && missing > 0 {
		hash += strings.Repeat("0", missing)
	}
	d, err := digest.Parse(fn, hash, p.GetSizeBytes())
	if err != nil {
		return d, status.Error(codes.InvalidArgument, err.Error())
	}
	return s.infer(v, d), nil
}

// infer is what DigestInferredByLength does to digests without a function: it tries both.
func (s *Server) infer(v repb.DigestFunction_Value, d digest.Digest) digest.Digest {
	if !s.has(DigestInferredByLength) || v != repb.DigestFunction_UNKNOWN {
		return d
	}
	other := digest.New(digest.BLAKE3, d.Hash(), d.Size())
	if _, found := s.get(other); found {
		return other
	}
	return d
}
