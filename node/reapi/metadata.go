package reapi

import (
	"context"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// metadataHeader carries a serialised RequestMetadata.
const metadataHeader = "build.bazel.remote.execution.v2.requestmetadata-bin"

// maxMetadataField is how much of each field of a request's metadata is kept, in bytes.
const maxMetadataField = 1024

// Metadata tells which tool, invocation, action and target a call is for. All of it is what the
// client says, optional and unverified; every field is at most maxMetadataField bytes.
type Metadata struct {
	Tool, ToolVersion string
	Invocation        string // one run of the tool
	Correlated        string // several runs that belong together
	ActionID          string
	Mnemonic          string
	Target            string
	Configuration     string
}

// MetadataFrom gives the metadata that came with the call ctx belongs to. A missing or malformed
// header gives the zero value: metadata never fails a call.
func MetadataFrom(ctx context.Context) Metadata {
	values := metadata.ValueFromIncomingContext(ctx, metadataHeader)
	if len(values) == 0 {
		return Metadata{}
	}
	var m repb.RequestMetadata
	if err := proto.Unmarshal([]byte(values[0]), &m); err != nil {
		return Metadata{}
	}
	return Metadata{
		Tool:          clip(m.GetToolDetails().GetToolName()),
		ToolVersion:   clip(m.GetToolDetails().GetToolVersion()),
		Invocation:    clip(m.GetToolInvocationId()),
		Correlated:    clip(m.GetCorrelatedInvocationsId()),
		ActionID:      clip(m.GetActionId()),
		Mnemonic:      clip(m.GetActionMnemonic()),
		Target:        clip(m.GetTargetId()),
		Configuration: clip(m.GetConfigurationId()),
	}
}

// clip cuts s to maxMetadataField bytes, and no rune in two: what is cut is sent on in messages, which are valid UTF-8.
func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxMetadataField)], "") }
