package conformance

import (
	"bytes"
	"context"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// everyCallChecks hold for every method: what a digest is, the empty blob, instance names, metadata.
func everyCallChecks() []Check {
	cas := []Feature{Cache}
	return []Check{
		{
			Claim: "a_digest_is_hash_and_size", Needs: cas, Run: checkWrongSize, Source: "message Digest",
			Rule: "the size is part of the digest: a known hash with another size names no known blob",
		},
		{
			Claim: "a_hash_is_lowercase_hex_of_full_length", Needs: cas, Run: checkMalformed, Source: "message Digest, field hash",
			Rule: "digests that are not lowercase hexadecimal of the function's length are refused with INVALID_ARGUMENT",
		},
		{
			Claim: "the_empty_blob_is_never_missing", Needs: cas, Run: checkEmptyMissing, Source: "service ContentAddressableStorage",
			Rule: "FindMissingBlobs never lists the empty blob, in any digest function",
		},
		{
			Claim: "the_empty_blob_reads_in_a_batch", Needs: cas, Run: checkEmptyBatch, Source: "service ContentAddressableStorage",
			Rule: "BatchReadBlobs gives the empty blob, BatchUpdateBlobs takes it, without an upload before",
		},
		{
			Claim: "the_empty_blob_reads_and_writes_by_ByteStream", Needs: cas, Run: checkEmptyStream, Source: "service ContentAddressableStorage",
			Rule: "ByteStream.Read gives no bytes and OK, ByteStream.Write commits 0 bytes",
		},
		{
			Claim: "the_empty_blob_reads_compressed", Needs: []Feature{Cache, Zstd}, Run: checkEmptyZstd, Source: "service ContentAddressableStorage",
			Rule: "a compressed read of the empty blob is a stream that decodes to no bytes, a compressed write of it succeeds",
		},
		{
			Claim: "the_empty_directory_is_a_tree", Needs: cas, Run: checkEmptyTree, Source: "rpc GetTree; the empty Directory encodes to no bytes",
			Rule: "GetTree of the empty digest is one empty directory and not NOT_FOUND",
		},
		{
			Claim: "instance_names_may_have_several_segments", Needs: cas, Run: checkInstanceSegments, Source: "service ContentAddressableStorage, instance_name",
			Rule: "an instance name is opaque and may have several segments, in messages and in resource names alike",
		},
		{
			Claim: "instance_names_have_no_reserved_segment", Needs: cas, Level: Should, Run: checkReservedInstance, Source: "service ContentAddressableStorage, instance_name",
			Rule: "no segment of an instance name is blobs, uploads, actions, actionResults, operations, capabilities or compressed-blobs",
		},
		{
			Claim: "request_metadata_is_accepted", Needs: cas, Run: checkMetadata, Source: "message RequestMetadata",
			Rule: "the header build.bazel.remote.execution.v2.requestmetadata-bin is optional and changes no answer",
		},
		{
			Claim: "a_transient_error_says_when_to_retry", Needs: cas, Level: Should, Run: checkRetryInfo, Source: "every service: RetryInfo; Bazel's retrier obeys it",
			Rule: "UNAVAILABLE and RESOURCE_EXHAUSTED in a burst of calls carry google.rpc.RetryInfo with a delay",
		},
		{
			Claim: "request_metadata_that_is_garbage_is_tolerated", Needs: cas, Level: Should, Run: checkMetadataGarbage, Source: "message RequestMetadata",
			Rule: "metadata is advice: bytes that do not decode do not fail the call",
		},
	}
}

func checkWrongSize(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	d := s.Put(ctx, t, data)[0]
	for _, size := range []int64{99, 101, 0} {
		wrong := &repb.Digest{Hash: d.Hash, SizeBytes: size}
		resp, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
			InstanceName: s.Instance, DigestFunction: s.Function.Proto(), BlobDigests: []*repb.Digest{wrong},
		})
		if err == nil && len(resp.MissingBlobDigests) != 1 {
			t.Errorf("FindMissingBlobs: a blob of 100 bytes passes for present with size %d", size)
		} else if err != nil {
			wantCode(t, err, "FindMissingBlobs of a digest with the wrong size", codes.InvalidArgument)
		}
		if _, err := s.Read(ctx, s.ReadName(wrong), 0, 0); err == nil {
			t.Errorf("ByteStream.Read of %s: a blob of 100 bytes is read with size %d", s.ReadName(wrong), size)
		}
		read, err := s.CAS.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{
			InstanceName: s.Instance, DigestFunction: s.Function.Proto(), Digests: []*repb.Digest{wrong},
		})
		if err == nil && len(read.Responses) == 1 && read.Responses[0].GetStatus().GetCode() == 0 {
			t.Errorf("BatchReadBlobs: a blob of 100 bytes is read with size %d", size)
		}
	}
}

func checkMalformed(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	for what, d := range malformed(s.Put(ctx, t, data)[0]) {
		_, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
			InstanceName: s.Instance, DigestFunction: s.Function.Proto(), BlobDigests: []*repb.Digest{d},
		})
		wantCode(t, err, "FindMissingBlobs of a digest with "+what, codes.InvalidArgument)
		if !strings.ContainsAny(d.Hash, "/\x00") { // those make another resource name
			_, err = s.Read(ctx, s.ReadName(d), 0, 0)
			wantCode(t, err, "ByteStream.Read of a digest with "+what, codes.InvalidArgument)
		}
		resp, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
			InstanceName: s.Instance, DigestFunction: s.Function.Proto(),
			Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d, Data: data}},
		})
		if err == nil && len(resp.Responses) == 1 {
			err = status.FromProto(resp.Responses[0].GetStatus()).Err()
		}
		wantCode(t, err, "BatchUpdateBlobs of a digest with "+what, codes.InvalidArgument)
	}
}

func checkEmptyMissing(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		if missing := s.Missing(ctx, t, s.Empty(), s.Unseen()); len(missing) != 1 || missing[0].SizeBytes == 0 {
			t.Errorf("%s: FindMissingBlobs of the empty blob and an unknown one lists %s, want the unknown one alone", f, showAll(missing))
		}
	}
}

func checkEmptyBatch(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		resp, err := s.CAS.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{
			InstanceName: s.Instance, DigestFunction: f.Proto(), Digests: []*repb.Digest{s.Empty()},
		})
		if err != nil || len(resp.Responses) != 1 {
			t.Errorf("%s: BatchReadBlobs of the empty blob: %v, %v, want one response", f, resp, err)
			continue
		}
		wantStatus(t, resp.Responses[0].Status, f.String()+": BatchReadBlobs of the empty blob", codes.OK)
		if len(resp.Responses[0].Data) != 0 && resp.Responses[0].Compressor == repb.Compressor_IDENTITY {
			t.Errorf("%s: BatchReadBlobs of the empty blob gave %d bytes", f, len(resp.Responses[0].Data))
		}
		s.Put(ctx, t, nil)
	}
}

func checkEmptyStream(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		s := s.With(f)
		s.WantReadable(ctx, t, nil)
		if n, err := s.Write(ctx, s.WriteName(s.Empty()), nil); err != nil || n != 0 {
			t.Errorf("%s: ByteStream.Write of the empty blob: committed %d, %v, want 0 and no error", f, n, err)
		}
	}
}

func checkEmptyZstd(ctx context.Context, t T, s *Subject) {
	data, err := s.Read(ctx, s.ZstdReadName(s.Empty()), 0, 0)
	if err != nil {
		t.Errorf("ByteStream.Read of %s: %v", s.ZstdReadName(s.Empty()), err)
	} else if plain := decompress(t, data); len(plain) != 0 {
		t.Errorf("the compressed empty blob decodes to %d bytes", len(plain))
	}
	for what, frame := range map[string][]byte{"an empty frame": emptyFrame(), "no bytes at all": nil} {
		if _, err := s.Write(ctx, s.ZstdWriteName(s.Empty()), frame); err != nil {
			t.Errorf("ByteStream.Write of the empty blob as %s: %v", what, err)
		}
	}
}

// emptyFrame is a zstd frame without content (RFC 8878, section 3.1.1).
func emptyFrame() []byte { return []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00} }

func checkEmptyTree(ctx context.Context, t T, s *Subject) {
	dirs, err := s.tree(ctx, &repb.GetTreeRequest{RootDigest: s.Empty()})
	if err != nil {
		t.Errorf("GetTree of the empty directory: %v", err)
	} else if len(dirs) > 1 || len(dirs) == 1 && !proto.Equal(dirs[0], &repb.Directory{}) {
		t.Errorf("GetTree of the empty directory gave %v", dirs)
	}
}

func checkInstanceSegments(ctx context.Context, t T, s *Subject) {
	several := s.In("team/project.x/7")
	data := s.Blob(300)
	resp, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: several.Instance, DigestFunction: s.Function.Proto(),
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: s.Digest(data), Data: data}},
	})
	if err != nil || len(resp.Responses) != 1 || resp.Responses[0].GetStatus().GetCode() != 0 {
		t.Skipf("the server serves no instance %q, which is its right: %v", several.Instance, err)
	}
	several.WantReadable(ctx, t, data)
	other := s.Blob(300)
	if n, err := several.Write(ctx, several.WriteName(s.Digest(other)), other); err != nil || n != 300 {
		t.Errorf("ByteStream.Write in instance %q: committed %d, %v, want 300 and no error", several.Instance, n, err)
	}
	several.WantReadable(ctx, t, other)
}

func checkReservedInstance(ctx context.Context, t T, s *Subject) {
	for _, word := range []string{"blobs", "uploads", "actions", "actionResults", "operations", "capabilities", "compressed-blobs"} {
		for _, name := range []string{word, "a/" + word, word + "/b"} {
			_, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
				InstanceName: name, BlobDigests: []*repb.Digest{s.Unseen()}, DigestFunction: s.Function.Proto(),
			})
			wantRefused(t, err, "FindMissingBlobs in instance "+name)
		}
	}
}

// burst is the number of calls that checkRetryInfo makes, in rows of a tenth at a time.
const burst = 200

func checkRetryInfo(ctx context.Context, t T, s *Subject) {
	data := s.Blob(2000)
	s.Put(ctx, t, data)
	errs := make(chan error)
	for range 10 {
		go func() {
			for range burst / 10 {
				_, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
					InstanceName: s.Instance, DigestFunction: s.Function.Proto(), BlobDigests: []*repb.Digest{s.Digest(data), s.Unseen()},
				})
				errs <- err
			}
		}()
	}
	turned := 0
	for range burst {
		st := status.Convert(<-errs)
		if st.Code() != codes.Unavailable && st.Code() != codes.ResourceExhausted {
			continue
		}
		if turned++; !hasRetryInfo(st) {
			t.Errorf("a call of a burst got %s (%s) without RetryInfo", st.Code(), st.Message())
		}
	}
	if turned == 0 {
		t.Skipf("none of %d calls, ten at a time, was turned away", burst)
	}
}

func hasRetryInfo(st *status.Status) bool {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay() != nil {
			return true
		}
	}
	return false
}

// metadataHeader carries a RequestMetadata on any call.
const metadataHeader = "build.bazel.remote.execution.v2.requestmetadata-bin"

func checkMetadata(ctx context.Context, t T, s *Subject) {
	meta := wire(t, &repb.RequestMetadata{
		ToolDetails: &repb.ToolDetails{ToolName: "conformance", ToolVersion: "1"}, ActionId: "a", ToolInvocationId: "b",
		CorrelatedInvocationsId: "c", ActionMnemonic: "CppCompile", TargetId: "//:t", ConfigurationId: "d",
	})
	withMetadata(metadata.AppendToOutgoingContext(ctx, metadataHeader, string(meta)), t, s)
}

func checkMetadataGarbage(ctx context.Context, t T, s *Subject) {
	withMetadata(metadata.AppendToOutgoingContext(ctx, metadataHeader, "\xff\xff\xff\xff"), t, s)
	withMetadata(metadata.AppendToOutgoingContext(ctx, metadataHeader, string(bytes.Repeat([]byte("x"), 2000))), t, s)
}

func withMetadata(ctx context.Context, t T, s *Subject) {
	t.Helper()
	data := s.Blob(100)
	s.Put(ctx, t, data)
	s.WantReadable(ctx, t, data)
}
