package reapi

import (
	"fmt"
	"io"
	"testing"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// directory stores a directory of children and gives its digest. Files make it differ by name.
func (e *endpoint) directory(t testing.TB, fn digest.Function, name string, children ...digest.Digest) digest.Digest {
	t.Helper()
	dir := &repb.Directory{Files: []*repb.FileNode{{Name: name, Digest: fn.Empty().Proto()}}}
	for i, c := range children {
		dir.Directories = append(dir.Directories, &repb.DirectoryNode{Name: fmt.Sprintf("d%03d", i), Digest: c.Proto()})
	}
	return e.put(t, fn, marshal(t, dir))
}

// tree gives the names of the directories of each response, and the tokens.
func (e *endpoint) tree(t testing.TB, q *repb.GetTreeRequest) (pages [][]string, tokens []string, err error) {
	t.Helper()
	stream, err := e.cas.GetTree(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return pages, tokens, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var names []string
		for _, d := range r.Directories {
			names = append(names, d.Files[0].Name)
		}
		pages, tokens = append(pages, names), append(tokens, r.NextPageToken)
	}
}

func TestGetTree(t *testing.T) {
	for _, fn := range digest.Functions() {
		e := start(t)
		shared := e.directory(t, fn, "shared")
		lost := fn.Of([]byte("lost"))
		left := e.directory(t, fn, "left", shared, lost)
		right := e.directory(t, fn, "right", shared)
		root := e.directory(t, fn, "root", left, right)
		q := &repb.GetTreeRequest{RootDigest: root.Proto(), DigestFunction: fn.Proto()}
		pages, tokens, err := e.tree(t, q)
		if got := fmt.Sprint(pages); err != nil || got != "[[root left right shared]]" || tokens[0] != "" {
			t.Errorf("%s: %s, %v", fn, got, err)
		}
		q.PageSize = 3
		pages, tokens, err = e.tree(t, q)
		if got := fmt.Sprint(pages); err != nil || got != "[[root left right] [shared]]" || tokens[0] == "" || tokens[1] != "" {
			t.Fatalf("%s in pages: %s, tokens %q, %v", fn, got, tokens, err)
		}
		q.PageToken = tokens[0]
		if pages, _, err = e.tree(t, q); err != nil || fmt.Sprint(pages) != "[[shared]]" {
			t.Errorf("%s from a token: %v, %v", fn, pages, err)
		}
		for _, token := range []string{"x", "-1", "0", "03", "99"} {
			q.PageToken = token
			_, _, err := e.tree(t, q)
			wantCode(t, err, codes.InvalidArgument)
		}
	}
}

func TestGetTreeRefuses(t *testing.T) {
	e := start(t, func(c *Config) { c.Limits.MaxTreeNodes = 2 })
	text := e.put(t, digest.SHA256, []byte("\xff no directory"))
	bad := e.put(t, digest.SHA256, marshal(t, &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "x", Digest: &repb.Digest{Hash: "x"}}}}))
	large := e.directory(t, digest.SHA256, "large", e.directory(t, digest.SHA256, "a"), e.directory(t, digest.SHA256, "b"))
	for want, qs := range map[codes.Code][]*repb.GetTreeRequest{
		codes.NotFound: {{RootDigest: abc.Proto()}},
		codes.InvalidArgument: {
			{}, {RootDigest: &repb.Digest{Hash: "x"}}, {RootDigest: text.Proto()}, {RootDigest: bad.Proto()},
			{RootDigest: large.Proto()}, {RootDigest: large.Proto(), PageSize: -1}, {RootDigest: large.Proto(), InstanceName: "blobs"},
		},
	} {
		for _, q := range qs {
			_, _, err := e.tree(t, q)
			wantCode(t, err, want)
		}
	}
}

func TestGetTreeOfTheEmptyDirectory(t *testing.T) {
	e := start(t)
	stream, err := e.cas.GetTree(t.Context(), &repb.GetTreeRequest{RootDigest: digest.SHA256.Empty().Proto()})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || len(r.Directories) != 1 {
		t.Errorf("%v, %v", r, err)
	}
}
