//lint:file-ignore SA1019 fields that are deprecated are still sent by clients, and examined here

package wrong

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Bounds of an action.
const (
	longestTimeout = 24 * time.Hour
	deepestTree    = 100
	largestTree    = 100_000 // nodes
)

// action is an action with all it needs.
type action struct {
	digest  digest.Digest
	message *repb.Action
	command *repb.Command
	root    digest.Digest
	dirs    map[digest.Digest]*repb.Directory
}

// load fetches an action and everything below it. The error names every blob that is missing.
func (s *Server) load(d digest.Digest) (*action, error) {
	a := &action{digest: d, message: &repb.Action{}, command: &repb.Command{}, dirs: map[digest.Digest]*repb.Directory{}}
	l := &loader{server: s, action: a}
	if err := l.message(d, a.message); err != nil {
		return nil, err
	}
	if len(l.missing) > 0 {
		return nil, s.missing(d, l.missing)
	}
	command, err := digest.FromProto(d.Function(), a.message.CommandDigest)
	if err == nil {
		a.root, err = digest.FromProto(d.Function(), a.message.InputRootDigest)
	}
	if err != nil {
		return nil, s.malformed("action: %v", err)
	}
	if err := l.message(command, a.command); err != nil {
		return nil, err
	}
	if err := l.directories(); err != nil {
		return nil, err
	}
	if len(l.missing) > 0 {
		return nil, s.missing(d, l.missing)
	}
	return a, s.validate(a)
}

func (s *Server) malformed(format string, args ...any) error {
	if s.has(MalformedActionRuns) {
		return status.Errorf(codes.Internal, format, args...)
	}
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// missing is FAILED_PRECONDITION with one violation for each blob.
func (s *Server) missing(action digest.Digest, ds []digest.Digest) error {
	if s.has(MissingRemembered) {
		s.mu.Lock()
		s.spoiled[action] = true
		s.mu.Unlock()
	}
	if s.has(OneMissingBlobAtATime) {
		ds = ds[:1]
	}
	st := status.Newf(codes.FailedPrecondition, "%d blobs are missing, the first is %s", len(ds), ds[0])
	if s.has(LostBlobIsNotFound) {
		st = status.New(codes.NotFound, st.Message())
	}
	failure := &errdetails.PreconditionFailure{}
	for _, d := range ds {
		segment := ""
		if d.Function() == digest.BLAKE3 {
			segment = "blake3/"
		}
		subject := "blobs/" + segment + d.String()
		if s.has(SubjectWithInstance) {
			subject = "instance/blobs/" + d.String()
		}
		failure.Violations = append(failure.Violations, &errdetails.PreconditionFailure_Violation{Type: "MISSING", Subject: subject})
	}
	if s.has(MissingWithoutDetails) {
		return st.Err()
	}
	detailed, err := st.WithDetails(failure)
	if err != nil {
		return status.Errorf(codes.Internal, "encode details: %v", err)
	}
	return detailed.Err()
}

// loader collects what an action refers to.
type loader struct {
	server  *Server
	action  *action
	missing []digest.Digest
}

// message decodes a blob; one that is absent is noted and no error.
func (l *loader) message(d digest.Digest, m proto.Message) error {
	data, found := l.server.get(d)
	if !found {
		l.miss(d)
		return nil
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return l.server.malformed("blob %s: %v", d, err)
	}
	return nil
}

func (l *loader) miss(d digest.Digest) {
	if !slices.Contains(l.missing, d) {
		l.missing = append(l.missing, d)
	}
}

// directories loads the input tree level by level and examines it.
func (l *loader) directories() error {
	s, fn := l.server, l.action.root.Function()
	level := []digest.Digest{l.action.root}
	for depth := 0; len(level) > 0; depth++ {
		if depth > deepestTree {
			return s.tooLarge(DepthUnbounded, "the input root has more than %d levels", deepestTree)
		}
		var next []digest.Digest
		for _, d := range level {
			if l.action.dirs[d] != nil {
				continue
			}
			dir := &repb.Directory{}
			data, found := s.get(d)
			if !found {
				l.miss(d)
				continue
			}
			if err := proto.Unmarshal(data, dir); err != nil {
				return s.malformedTree("directory %s: %v", d, err)
			}
			l.action.dirs[d] = dir
			children, err := l.children(fn, dir)
			if err != nil {
				return err
			}
			next = append(next, children...)
		}
		level = next
	}
	if len(l.missing) > 0 {
		return nil
	}
	if count(l.action, l.action.root, map[digest.Digest]int{}) > largestTree {
		return s.tooLarge(WidthUnbounded, "the input root has more than %d nodes", largestTree)
	}
	return nil
}

func (s *Server) tooLarge(d Defect, format string, args ...any) error {
	if s.has(CrashesAfterBomb) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.crashed = true
	}
	if s.has(d) {
		return status.Errorf(codes.Internal, format, args...)
	}
	return status.Errorf(codes.InvalidArgument, format, args...)
}

func (s *Server) malformedTree(format string, args ...any) error {
	if s.has(MalformedTreeIsInternal) {
		return status.Errorf(codes.Internal, format, args...)
	}
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// count is the number of nodes below a directory, at most a little above largestTree. A tree of
// digests has no cycles: a directory would have to contain its own hash.
func count(a *action, d digest.Digest, known map[digest.Digest]int) int {
	if n, found := known[d]; found {
		return n
	}
	dir := a.dirs[d]
	n := len(dir.Files) + len(dir.Symlinks)
	for _, c := range dir.Directories {
		child, _ := digest.FromProto(d.Function(), c.Digest) // examined when it was loaded
		n = min(n+1+count(a, child, known), largestTree+1)
	}
	known[d] = n
	return n
}

// children examines a directory's nodes, notes absent files and gives its subdirectories.
func (l *loader) children(fn digest.Function, dir *repb.Directory) ([]digest.Digest, error) {
	s := l.server
	names := map[string]string{}
	add := func(list, name string) error {
		unsafe := name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00")
		if unsafe && !s.has(UnsafeNamesAccepted) {
			return s.malformedTree("the name %q is not one of a file", name)
		}
		if other, taken := names[name]; taken && (other == list && !s.has(DuplicatesInList) || other != list && !s.has(DuplicateNamesAccepted)) {
			return s.malformedTree("the name %q occurs in %s and in %s", name, other, list)
		}
		names[name] = list
		return nil
	}
	if s.has(UnsortedIsInternal) && !slices.IsSortedFunc(dir.Files, func(a, b *repb.FileNode) int { return strings.Compare(a.Name, b.Name) }) {
		return nil, status.Error(codes.Internal, "unsorted directory")
	}
	var below []digest.Digest
	for _, f := range dir.Files {
		d, err := digest.FromProto(fn, f.Digest)
		if err != nil {
			return nil, s.malformedTree("file %q: %v", f.Name, err)
		}
		if err := add("files", f.Name); err != nil {
			return nil, err
		}
		if _, found := s.get(d); !found {
			l.miss(d)
		}
	}
	for _, c := range dir.Directories {
		d, err := digest.FromProto(fn, c.Digest)
		if err != nil {
			return nil, s.malformedTree("directory %q: %v", c.Name, err)
		}
		if err := add("directories", c.Name); err != nil {
			return nil, err
		}
		below = append(below, d)
	}
	for _, y := range dir.Symlinks {
		if err := add("symlinks", y.Name); err != nil {
			return nil, err
		}
	}
	return below, nil
}

// validate examines what is asked of the execution.
func (s *Server) validate(a *action) error {
	c := a.command
	if len(c.Arguments) == 0 {
		return s.malformed("the command has no arguments")
	}
	if a.message.Timeout != nil {
		timeout := a.message.Timeout.AsDuration()
		if timeout < 0 || timeout > longestTimeout && !s.has(TimeoutMaximumIgnored) || timeout > time.Minute && s.has(TimeoutShort) {
			return status.Errorf(codes.InvalidArgument, "timeout %s, maximum %s", timeout, longestTimeout)
		}
	}
	for _, name := range c.OutputNodeProperties {
		if !slices.Contains(nodeProperties(), name) && !s.has(UnknownNodePropertyIgnored) {
			return status.Errorf(codes.InvalidArgument, "node property %q", name)
		}
	}
	if _, inside := within("", c.WorkingDirectory); !inside && !s.has(EscapingPathsAccepted) {
		return status.Errorf(codes.InvalidArgument, "working directory %q leaves the input root", c.WorkingDirectory)
	}
	for _, name := range s.outputs(c) {
		if clean, inside := within(c.WorkingDirectory, name); (!inside || clean == "") && !s.has(EscapingPathsAccepted) || strings.Contains(name, "..") && s.has(DotDotOutputRefused) {
			return status.Errorf(codes.InvalidArgument, "output path %q leaves the input root", name)
		}
	}
	if s.has(UnsortedRefused) && !slices.IsSortedFunc(c.EnvironmentVariables, func(a, b *repb.Command_EnvironmentVariable) int { return strings.Compare(a.Name, b.Name) }) {
		return status.Error(codes.InvalidArgument, "the environment is not sorted")
	}
	return s.match(a)
}

// nodeProperties are those the server knows.
func nodeProperties() []string { return []string{"mtime", "unix_mode"} }

// within joins name to dir and tells whether it stays inside the input root.
func within(dir, name string) (string, bool) {
	if path.IsAbs(name) {
		return "", false
	}
	clean := path.Join(dir, name)
	if clean == "." {
		clean = ""
	}
	return clean, clean != ".." && !strings.HasPrefix(clean, "../")
}

// outputs are the paths asked for, as sent.
func (s *Server) outputs(c *repb.Command) []string {
	old := slices.Concat(c.OutputFiles, c.OutputDirectories)
	switch {
	case len(c.OutputPaths) == 0 && !s.has(OldFieldsIgnored):
		return old
	case s.has(OldFieldsUsedToo):
		return slices.Concat(c.OutputPaths, old)
	default:
		return c.OutputPaths
	}
}

// match compares the platform asked for with the one property this machine has.
func (s *Server) match(a *action) error {
	p := a.message.Platform
	if p == nil && !s.has(CommandPlatformIgnored) || s.has(CommandPlatformFirst) {
		p = a.command.Platform
	}
	for _, q := range p.GetProperties() {
		if q.Name == "OSFamily" && strings.EqualFold(q.Value, "linux") || s.has(UnknownPropertyAccepted) {
			continue
		}
		said := fmt.Sprintf("no executor has the platform property %s=%s", q.Name, q.Value)
		if s.has(UnknownPropertyUnnamed) {
			said = "no executor fits"
		}
		return status.Error(codes.FailedPrecondition, said)
	}
	return nil
}
