package node

import (
	"testing"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestCacheOnly runs a node without execution: it says so, and everything else is there.
func TestCacheOnly(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	n := start(t, configured(t, dir))
	c, err := repb.NewCapabilitiesClient(n.conn).GetCapabilities(t.Context(), &repb.GetCapabilitiesRequest{})
	if err != nil || c.ExecutionCapabilities.GetExecEnabled() || c.CacheCapabilities == nil {
		t.Errorf("capabilities: %v, %v", c, err)
	}
	stream, err := repb.NewExecutionClient(n.conn).Execute(t.Context(), &repb.ExecuteRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("Execute without execution: %v", err)
	}

	log, err := logpb.NewLogStreamServiceClient(n.conn).CreateLogStream(t.Context(), &logpb.CreateLogStreamRequest{Parent: "builds/1"})
	if err != nil {
		t.Fatal(err)
	}
	write, err := bspb.NewByteStreamClient(n.conn).Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := write.Send(&bspb.WriteRequest{ResourceName: log.WriteResourceName, Data: []byte("said"), FinishWrite: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := write.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
	read, err := bspb.NewByteStreamClient(n.conn).Read(t.Context(), &bspb.ReadRequest{ResourceName: log.Name})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := read.Recv(); err != nil || string(m.Data) != "said" {
		t.Errorf("log: %v, %v", m, err)
	}

	const uri = "urn:fdc:example:artifact"
	blob := n.put(t, "an artifact")
	if _, err := rapb.NewPushClient(n.conn).PushBlob(t.Context(), &rapb.PushBlobRequest{Uris: []string{uri}, BlobDigest: blob.Proto()}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	restarted := start(t, configured(t, dir))
	found, err := rapb.NewFetchClient(restarted.conn).FetchBlob(t.Context(), &rapb.FetchBlobRequest{Uris: []string{uri}})
	if err != nil || found.BlobDigest.GetHash() != blob.Hex() {
		t.Errorf("asset after a restart: %v, %v", found, err)
	}
	restarted.stop()
}
