package wrong

import (
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// defaultPage is the number of directories of a GetTree response unless the client says less.
const defaultPage = 500

// GetTree sends a directory and all below it, breadth first, each once. A page token is the number
// of directories sent before.
func (s *Server) GetTree(req *repb.GetTreeRequest, stream repb.ContentAddressableStorage_GetTreeServer) error {
	if s.has(GetTreeUnimplemented) {
		return status.Error(codes.Unimplemented, "GetTree")
	}
	root, err := s.digest(req.DigestFunction, req.RootDigest)
	if err != nil {
		return err
	}
	dirs, err := s.descend(root)
	if err != nil {
		return err
	}
	skip := 0
	if req.PageToken != "" && !s.has(GetTreeTokenIgnored) {
		if skip, err = strconv.Atoi(req.PageToken); err != nil || skip < 0 || skip > len(dirs) {
			return status.Errorf(codes.InvalidArgument, "page token %q", req.PageToken)
		}
	}
	page := int(req.PageSize)
	if page <= 0 || s.has(GetTreeUnpaged) {
		page = defaultPage
	}
	for {
		end := min(skip+page, len(dirs))
		resp := &repb.GetTreeResponse{Directories: dirs[skip:end]}
		if end < len(dirs) {
			resp.NextPageToken = strconv.Itoa(end)
		}
		if err := stream.Send(resp); err != nil || end == len(dirs) {
			return err
		}
		skip = end
	}
}

// descend lists the directories from root on, leaving out what is absent.
func (s *Server) descend(root digest.Digest) ([]*repb.Directory, error) {
	if _, found := s.get(root); !found && !s.has(GetTreeMissingRootIsEmpty) {
		return nil, status.Errorf(codes.NotFound, "root directory %s", root)
	}
	var dirs []*repb.Directory
	seen := map[digest.Digest]bool{}
	for queue := []digest.Digest{root}; len(queue) > 0; queue = queue[1:] {
		data, found := s.get(queue[0])
		if !found && queue[0] != root && s.has(GetTreeHoleFails) {
			return nil, status.Errorf(codes.NotFound, "directory %s", queue[0])
		}
		if !found || seen[queue[0]] {
			continue
		}
		seen[queue[0]] = true
		dir := &repb.Directory{}
		if err := proto.Unmarshal(data, dir); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "directory %s: %v", queue[0], err)
		}
		dirs = append(dirs, dir)
		for _, child := range dir.Directories {
			d, err := digest.FromProto(root.Function(), child.Digest)
			if err != nil {
				return nil, status.Errorf(codes.InvalidArgument, "directory %s: %v", child.Name, err)
			}
			if !s.has(GetTreeRootOnly) {
				queue = append(queue, d)
			}
		}
	}
	return dirs, nil
}
