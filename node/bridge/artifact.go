package bridge

import (
	"errors"
	"fmt"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// artifactURN is what BuildStream calls an artifact, followed by project/element/key.
const artifactURN = "urn:fdc:buildstream.build:2020:artifact:"

// Name names an artifact.
type Name struct{ Project, Element, Key string }

// ParseName reads project/element/key. Elements in folders may be written as the project has them,
// folder/name.bst.
func ParseName(s string) (Name, error) {
	project, rest, found := strings.Cut(s, "/")
	at := strings.LastIndexByte(rest, '/')
	if !found || at < 0 {
		return Name{}, fmt.Errorf("%.200q is no artifact: want PROJECT/ELEMENT/KEY", s)
	}
	element := strings.TrimSuffix(rest[:at], ".bst")
	n := Name{project, strings.ReplaceAll(element, "/", "-"), rest[at+1:]}
	for _, part := range []string{n.Project, n.Element, n.Key} {
		if part == "" || strings.ContainsFunc(part, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return Name{}, fmt.Errorf("%.200q is no artifact: want PROJECT/ELEMENT/KEY", s)
		}
	}
	return n, nil
}

func (n Name) String() string { return n.Project + "/" + n.Element + "/" + n.Key }

// URN is the URI that BuildStream pushes and fetches the artifact by.
func (n Name) URN() string { return artifactURN + n.String() }

// Artifact is what of BuildStream's message buildstream.v2.Artifact matters here.
type Artifact struct {
	Succeeded bool
	Key       string        // the strong one
	Files     digest.Digest // of a Directory; zero: it has none
}

// Numbers of the message's fields.
const (
	fieldVersion   = 1
	fieldSucceeded = 2
	fieldStrongKey = 5
	fieldWeakKey   = 6
	fieldFiles     = 8
	fieldPublic    = 10
	fieldLow       = 14
	fieldHigh      = 15
	fieldStrictKey = 16
)

// errArtifact means that a blob is no Artifact message.
var errArtifact = errors.New("not an artifact of BuildStream 2")

// DecodeArtifact reads an Artifact message.
func DecodeArtifact(data []byte) (Artifact, error) {
	var a Artifact
	version := uint64(0)
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return a, errArtifact
		}
		size := protowire.ConsumeFieldValue(number, kind, data[n:])
		if size < 0 {
			return a, errArtifact
		}
		value := data[n : n+size]
		data = data[n+size:]
		switch {
		case number == fieldVersion && kind == protowire.VarintType:
			version, _ = protowire.ConsumeVarint(value)
		case number == fieldSucceeded && kind == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			a.Succeeded = v != 0
		case number == fieldStrongKey && kind == protowire.BytesType:
			v, _ := protowire.ConsumeBytes(value)
			a.Key = string(v)
		case number == fieldFiles && kind == protowire.BytesType:
			v, _ := protowire.ConsumeBytes(value)
			var p repb.Digest
			if proto.Unmarshal(v, &p) != nil {
				return a, errArtifact
			}
			var err error
			if a.Files, err = digest.FromProto(digest.SHA256, &p); err != nil {
				return a, fmt.Errorf("%w: %w", errArtifact, err)
			}
		}
	}
	if version == 0 {
		return a, errArtifact
	}
	return a, nil
}

// NewArtifact makes the message of an artifact that was built elsewhere: files are its content, metadata
// is a blob that stands for each of the three files of metadata, which BuildStream wants to have.
func NewArtifact(key string, files, metadata digest.Digest) []byte {
	var b []byte
	number := func(field protowire.Number, v uint64) {
		b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
	}
	text := func(field protowire.Number, v string) {
		b = protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), v)
	}
	blob := func(field protowire.Number, d digest.Digest) {
		var m []byte
		m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), d.Hex())
		m = protowire.AppendVarint(protowire.AppendTag(m, 2, protowire.VarintType), uint64(d.Size()))
		b = protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), m)
	}
	number(fieldVersion, 1)
	number(fieldSucceeded, 1)
	text(fieldStrongKey, key)
	text(fieldWeakKey, key)
	blob(fieldFiles, files)
	blob(fieldPublic, metadata)
	blob(fieldLow, metadata)
	blob(fieldHigh, metadata)
	text(fieldStrictKey, key)
	return b
}
