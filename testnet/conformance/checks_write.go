package conformance

import (
	"context"
	"errors"
	"io"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// writeChecks hold of ByteStream.Write and QueryWriteStatus, uncompressed.
func writeChecks() []Check {
	cas, src := []Feature{Cache}, "google.bytestream.WriteRequest"
	return []Check{
		{
			Claim: "a_write_commits_its_size", Needs: cas, Run: checkWriteWhole, Source: "rpc ByteStream.Write; WriteResponse.committed_size",
			Rule: "blobs of every size are stored whole, and committed_size is their size, never -1",
		},
		{
			Claim: "a_write_names_its_resource_once", Needs: cas, Run: checkWriteNameRepeated, Source: src + ".resource_name",
			Rule: "the name stands on the first message; it may be repeated unchanged, and another name is refused",
		},
		{
			Claim: "a_write_starts_at_the_committed_size", Needs: cas, Run: checkWriteStart, Source: src + ".write_offset",
			Rule: "the first offset of a new upload is 0; any other is refused with INVALID_ARGUMENT or OUT_OF_RANGE",
		},
		{
			Claim: "a_write_has_no_gaps", Needs: cas, Run: checkWriteGap, Source: src + ".write_offset",
			Rule: "each offset is the sum of what was sent before; a gap or an overlap is refused",
		},
		{
			Claim: "nothing_follows_finish_write", Needs: cas, Run: checkWriteAfterFinish, Source: src + ".finish_write",
			Rule: "finish_write ends the blob: what follows is an error or is ignored, and never becomes part of it",
		},
		{
			Claim: "a_write_of_other_bytes_is_INVALID_ARGUMENT", Needs: cas, Run: checkWriteMismatch, Source: "service ContentAddressableStorage: does not match",
			Rule: "bytes that do not match hash or size get INVALID_ARGUMENT and are not stored",
		},
		{
			Claim: "a_write_without_finish_write_stores_nothing", Needs: cas, Run: checkWriteUnfinished, Source: src + ".finish_write",
			Rule: "a stream that ends early leaves no blob: it is neither found nor read",
		},
		{
			Claim: "a_write_of_a_known_blob_finishes_at_once", Needs: cas, Run: checkWriteKnown, Source: "service ContentAddressableStorage: terminate immediately",
			Rule: "without error, with committed_size the full size, before the client has sent the rest",
		},
		{
			Claim: "a_write_that_another_upload_overtakes_succeeds", Needs: cas, Run: checkWriteOvertaken, Source: "service ContentAddressableStorage: in the middle of a single upload",
			Rule: "when another upload completes the blob meanwhile, this one ends without error and committed_size is the full size",
		},
		{
			Claim: "concurrent_writes_of_one_blob_all_succeed", Needs: cas, Run: checkWriteConcurrent, Source: "service ContentAddressableStorage: Uploads of the same data MAY occur concurrently",
			Rule: "uploads under different uuids do not disturb each other",
		},
		{
			Claim: "QueryWriteStatus_of_a_new_upload_is_0", Needs: cas, Run: checkStatusBefore, Source: "rpc ByteStream.QueryWriteStatus",
			Rule: "before the first byte: committed_size 0 and not complete, or NOT_FOUND",
		},
		{
			Claim: "QueryWriteStatus_works_during_an_upload", Needs: cas, Run: checkStatusDuring, Source: "rpc ByteStream.QueryWriteStatus",
			Rule: "during: not complete, committed_size no more than was sent",
		},
		{
			Claim: "QueryWriteStatus_of_a_finished_upload_is_complete", Needs: cas, Run: checkStatusAfter, Source: "QueryWriteStatusResponse.complete",
			Rule: "after: complete, committed_size the size; so too under a name never used, when the blob is known",
		},
		{
			Claim: "a_write_resumes_where_QueryWriteStatus_says", Needs: cas, Run: checkResume, Source: "rpc ByteStream.Write; Bazel's uploader resumes so",
			Rule: "after a broken stream the upload goes on from the reported committed_size under the same name",
		},
		{
			Claim: "a_broken_upload_keeps_what_arrived", Needs: cas, Level: Should, Run: checkPartialKept, Source: "rpc ByteStream.Write: may be resumed; Bazel's uploader resumes so",
			Rule: "QueryWriteStatus of an upload whose stream broke after 8 MiB is not 0",
		},
	}
}

func checkWriteWhole(ctx context.Context, t T, s *Subject) {
	for _, n := range []int{1, piece, piece + 1, 3 << 20, messageLimit + 1} {
		data := s.Blob(n)
		wantWritten(ctx, t, s, s.WriteName(s.Digest(data)), data)
	}
}

func checkWriteNameRepeated(ctx context.Context, t T, s *Subject) {
	data := s.Blob(2 * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	reqs[1].ResourceName = reqs[0].ResourceName
	if n, err := s.Send(ctx, reqs...); err != nil || n != int64(len(data)) {
		t.Errorf("ByteStream.Write with the name on every message: committed %d, %v", n, err)
	}
	other := s.Blob(2 * piece)
	reqs = pieces(s.WriteName(s.Digest(other)), other)
	reqs[1].ResourceName = s.WriteName(s.Unseen())
	_, err := s.Send(ctx, reqs...)
	wantRefused(t, err, "ByteStream.Write whose second message has another name")
}

func checkWriteStart(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	for _, off := range []int64{10, 1000, 5000, -1} {
		name := s.WriteName(s.Digest(data))
		_, err := s.Send(ctx, &bspb.WriteRequest{ResourceName: name, WriteOffset: off, Data: data, FinishWrite: true})
		wantCode(t, err, "ByteStream.Write of a new upload from another offset than 0", codes.InvalidArgument, codes.OutOfRange)
	}
}

func checkWriteGap(ctx context.Context, t T, s *Subject) {
	for what, shift := range map[string]int64{"a gap": 10, "an overlap": -10} {
		data := s.Blob(2 * piece)
		reqs := pieces(s.WriteName(s.Digest(data)), data)
		reqs[1].WriteOffset += shift
		_, err := s.Send(ctx, reqs...)
		wantCode(t, err, "ByteStream.Write with "+what, codes.InvalidArgument, codes.OutOfRange)
	}
}

func checkWriteAfterFinish(ctx context.Context, t T, s *Subject) {
	data := s.Blob(2 * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	reqs[0].FinishWrite = true
	_, err := s.Send(ctx, reqs...)
	wantCode(t, err, "ByteStream.Write with finish_write on the first half", codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition)
	if len(s.Missing(ctx, t, s.Digest(data))) == 0 {
		t.Errorf("a blob was made of data sent after finish_write")
	}
	whole := s.Blob(piece)
	reqs = append(pieces(s.WriteName(s.Digest(whole)), whole),
		&bspb.WriteRequest{WriteOffset: piece, Data: s.Blob(10), FinishWrite: true})
	if n, err := s.Send(ctx, reqs...); err == nil && n != piece {
		t.Errorf("ByteStream.Write with data after finish_write: committed %d, want %d or an error", n, piece)
	} else if err == nil {
		s.WantReadable(ctx, t, whole)
	}
}

func checkWriteMismatch(ctx context.Context, t T, s *Subject) {
	data := s.Blob(1000)
	for what, d := range map[string]*repb.Digest{
		"another hash":   s.Digest(s.Blob(1000)),
		"a smaller size": {Hash: s.Digest(data).Hash, SizeBytes: 999},
		"a larger size":  {Hash: s.Digest(data).Hash, SizeBytes: 1001},
	} {
		_, err := s.Write(ctx, s.WriteName(d), data)
		wantCode(t, err, "ByteStream.Write under "+what, codes.InvalidArgument)
		if len(s.Missing(ctx, t, d)) != 1 {
			t.Errorf("ByteStream.Write under %s stored the blob", what)
		}
	}
}

func checkWriteUnfinished(ctx context.Context, t T, s *Subject) {
	data := s.Blob(3 * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	_, _ = s.Send(ctx, reqs[:2]...) // whether the end of the stream is an error is the server's choice
	if len(s.Missing(ctx, t, s.Digest(data))) != 1 {
		t.Errorf("FindMissingBlobs finds a blob of which two thirds were written")
	}
	_, err := s.Read(ctx, s.ReadName(s.Digest(data)), 0, 0)
	wantCode(t, err, "ByteStream.Read of a blob of which two thirds were written", codes.NotFound)
}

// answer waits for a Write's response without ending our side of the stream.
func answer(stream bspb.ByteStream_WriteClient) (int64, error) {
	resp := new(bspb.WriteResponse)
	err := stream.RecvMsg(resp)
	return resp.CommittedSize, err
}

func checkWriteKnown(ctx context.Context, t T, s *Subject) {
	data := s.Blob(3 * piece)
	d := s.Put(ctx, t, data)[0]
	ctx, cancel := context.WithTimeout(ctx, s.answerDeadline())
	defer cancel()
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	if err := stream.Send(pieces(s.WriteName(d), data)[0]); err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("ByteStream.Write, first message: %v", err)
	}
	if n, err := answer(stream); err != nil || n != d.SizeBytes {
		t.Errorf("ByteStream.Write of a known blob, after the first of 3 messages: committed %d, %v, want %d and no error", n, err, d.SizeBytes)
	}
}

func checkWriteOvertaken(ctx context.Context, t T, s *Subject) {
	data := s.Blob(3 * piece)
	d := s.Digest(data)
	reqs := pieces(s.WriteName(d), data)
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	if err := stream.Send(reqs[0]); err != nil {
		t.Fatalf("ByteStream.Write, first message: %v", err)
	}
	s.begun(ctx, reqs[0].ResourceName)
	if n, err := s.Write(ctx, s.WriteName(d), data); err != nil || n != d.SizeBytes {
		t.Fatalf("ByteStream.Write, the overtaking upload: committed %d, %v", n, err)
	}
	for _, r := range reqs[1:] {
		if err := stream.Send(r); err != nil {
			break // answered already, as it may be
		}
	}
	resp, err := stream.CloseAndRecv()
	if err != nil || resp.CommittedSize != d.SizeBytes {
		t.Errorf("ByteStream.Write, the overtaken upload: committed %d, %v, want %d and no error", resp.GetCommittedSize(), err, d.SizeBytes)
	}
}

// begun waits until the server tells that it has bytes of an upload; for a moment only, since it
// need not tell before the end.
func (s *Subject) begun(ctx context.Context, name string) {
	for range 20 {
		if st, err := s.writeStatus(ctx, name); err == nil && st.CommittedSize > 0 || pause(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
}

func checkWriteConcurrent(ctx context.Context, t T, s *Subject) {
	data := s.Blob(20 * piece)
	d := s.Digest(data)
	type result struct {
		n   int64
		err error
	}
	results := make(chan result, 6)
	for range cap(results) {
		go func() {
			n, err := s.Write(ctx, s.WriteName(d), data)
			results <- result{n, err}
		}()
	}
	for range cap(results) {
		if r := <-results; r.err != nil || r.n != d.SizeBytes {
			t.Errorf("one of 6 concurrent writes of a blob: committed %d, %v, want %d and no error", r.n, r.err, d.SizeBytes)
		}
	}
	s.WantReadable(ctx, t, data)
}

func (s *Subject) writeStatus(ctx context.Context, name string) (*bspb.QueryWriteStatusResponse, error) {
	return s.Bytes.QueryWriteStatus(ctx, &bspb.QueryWriteStatusRequest{ResourceName: name})
}

func checkStatusBefore(ctx context.Context, t T, s *Subject) {
	st, err := s.writeStatus(ctx, s.WriteName(s.Unseen()))
	if err != nil {
		wantCode(t, err, "QueryWriteStatus of a new upload", codes.NotFound)
	} else if st.CommittedSize != 0 || st.Complete {
		t.Errorf("QueryWriteStatus of a new upload: %v, want 0 and not complete", st)
	}
}

func checkStatusDuring(ctx context.Context, t T, s *Subject) {
	data := s.Blob(2 * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	if err := stream.Send(reqs[0]); err != nil {
		t.Fatalf("ByteStream.Write, first message: %v", err)
	}
	if st, err := s.writeStatus(ctx, reqs[0].ResourceName); err != nil {
		wantCode(t, err, "QueryWriteStatus during an upload", codes.NotFound)
	} else if st.Complete || st.CommittedSize > piece {
		t.Errorf("QueryWriteStatus after %d of %d bytes: %v", piece, len(data), st)
	}
	if err := stream.Send(reqs[1]); err != nil {
		t.Errorf("ByteStream.Write, second message after a QueryWriteStatus: %v", err)
	}
	if resp, err := stream.CloseAndRecv(); err != nil || resp.CommittedSize != int64(len(data)) {
		t.Errorf("ByteStream.Write with a QueryWriteStatus in its midst: %v, %v", resp, err)
	}
}

func checkStatusAfter(ctx context.Context, t T, s *Subject) {
	data := s.Blob(2 * piece)
	used, fresh := s.WriteName(s.Digest(data)), s.WriteName(s.Digest(data))
	wantWritten(ctx, t, s, used, data)
	for what, name := range map[string]string{"the name it was written under": used, "another name": fresh} {
		st, err := s.writeStatus(ctx, name)
		if err != nil || !st.Complete || st.CommittedSize != int64(len(data)) {
			t.Errorf("QueryWriteStatus of a stored blob by %s: %v, %v, want complete and %d", what, st, err, len(data))
		}
	}
}

func checkResume(ctx context.Context, t T, s *Subject) {
	data := s.Blob(4 * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	broken, cut := context.WithCancel(ctx)
	stream, err := s.Bytes.Write(broken)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	for _, r := range reqs[:3] {
		if err := stream.Send(r); err != nil {
			t.Fatalf("ByteStream.Write: %v", err)
		}
	}
	s.begun(ctx, reqs[0].ResourceName)
	cut()
	at, err := s.settled(ctx, reqs[0].ResourceName)
	if err != nil || at < 0 || at > 3*piece {
		t.Fatalf("QueryWriteStatus after a broken upload of %d bytes: %d, %v", 3*piece, at, err)
	}
	rest := []*bspb.WriteRequest{{ResourceName: reqs[0].ResourceName, WriteOffset: at, Data: data[at:], FinishWrite: true}}
	n, err := s.Send(ctx, rest...)
	if err != nil || n != int64(len(data)) {
		t.Fatalf("ByteStream.Write resumed at %d: committed %d, %v, want %d", at, n, err, len(data))
	}
	s.WantReadable(ctx, t, data)
}

func checkPartialKept(ctx context.Context, t T, s *Subject) {
	const sent, whole = 128, 160 // pieces
	data := s.Blob(whole * piece)
	reqs := pieces(s.WriteName(s.Digest(data)), data)
	broken, cut := context.WithCancel(ctx)
	defer cut()
	stream, err := s.Bytes.Write(broken)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	for _, r := range reqs[:sent] {
		if err := stream.Send(r); err != nil {
			t.Fatalf("ByteStream.Write: %v", err)
		}
	}
	s.begun(ctx, reqs[0].ResourceName)
	cut()
	at, err := s.settled(ctx, reqs[0].ResourceName)
	if err != nil || at <= 0 {
		t.Errorf("QueryWriteStatus after %d bytes and a broken stream: %d, %v, want more than 0", sent*piece, at, err)
	}
}

// settled asks for the committed size until a broken upload's has come to rest: two equal answers
// in a row, a moment apart.
func (s *Subject) settled(ctx context.Context, name string) (int64, error) {
	last := int64(-1)
	for {
		st, err := s.writeStatus(ctx, name)
		if status.Code(err) == codes.NotFound {
			st, err = &bspb.QueryWriteStatusResponse{}, nil
		}
		if err != nil || st.CommittedSize == last {
			return last, err
		}
		last = st.CommittedSize
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return last, err
		}
	}
}

// pause waits between two questions to a server that cannot be made to tell us.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
