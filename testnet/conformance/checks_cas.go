package conformance

import (
	"bytes"
	"context"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// largestBatch bounds the bytes a check moves to show that the batch limit is true.
const largestBatch = 32 << 20

// casChecks hold of FindMissingBlobs, BatchUpdateBlobs and BatchReadBlobs.
func casChecks() []Check {
	cas := []Feature{Cache}
	return []Check{
		{
			Claim: "FindMissingBlobs_lists_exactly_the_absent", Needs: cas, Run: checkFindMissing, Source: "rpc FindMissingBlobs",
			Rule: "every absent digest is listed, none that is present, whatever the order and number",
		},
		{
			Claim: "FindMissingBlobs_extends_lifetimes_so_that_what_it_found_can_be_read", Needs: cas, Run: checkFoundIsReadable, Source: "rpc FindMissingBlobs",
			Rule: "a blob that is not reported missing can be read afterwards, in a batch and as a stream",
		},
		{
			Claim: "FindMissingBlobs_takes_thousands_of_digests", Needs: cas, Run: checkFindMany, Source: "rpc FindMissingBlobs; Bazel asks for a whole input tree at once",
			Rule: "a request of 10,000 digests, duplicates among them, is answered",
		},
		{
			Claim: "a_batch_over_the_limit_is_refused_as_a_whole", Needs: cas, Run: checkOverLimit, Source: "rpc BatchUpdateBlobs, rpc BatchReadBlobs",
			Rule: "a batch whose total exceeds max_batch_total_size_bytes gets INVALID_ARGUMENT (or gRPC's own RESOURCE_EXHAUSTED above the message limit)",
		},
		{
			Claim: "the_batch_limit_is_true", Needs: cas, Run: checkLimitTrue, Source: "CacheCapabilities.max_batch_total_size_bytes",
			Rule: "a batch of exactly the advertised total is taken, and given back within a message of 4 MiB, gRPC's default",
		},
		{
			Claim: "the_batch_limit_is_not_0", Needs: cas, Level: Should, Run: checkLimitNotZero, Source: "CacheCapabilities.max_batch_total_size_bytes",
			Rule: "0 says no limit, which no server on gRPC has: clients then send batches that fail",
		},
		{
			Claim: "uploads_of_a_batch_are_independent", Needs: cas, Run: checkUpdateIndependent, Source: "rpc BatchUpdateBlobs",
			Rule: "an item that does not match its digest gets INVALID_ARGUMENT and its neighbours are stored",
		},
		{
			Claim: "a_batch_upload_answers_for_each_item", Needs: cas, Run: checkUpdateAnswers, Source: "BatchUpdateBlobsResponse",
			Rule: "each request has a response that carries its digest, also for blobs the server has already",
		},
		{
			Claim: "reads_of_a_batch_are_independent", Needs: cas, Run: checkReadIndependent, Source: "rpc BatchReadBlobs",
			Rule: "an absent item gets NOT_FOUND in its own status and its neighbours are given",
		},
		{
			Claim: "a_batch_upload_is_verified", Needs: cas, Run: checkUpdateVerified, Source: "rpc BatchUpdateBlobs",
			Rule: "bytes that do not match hash and size are refused with INVALID_ARGUMENT and not stored",
		},
		{
			Claim: "each_item_of_a_batch_has_its_own_compressor", Needs: []Feature{Cache, BatchZstd}, Run: checkItemCompressor, Source: "BatchUpdateBlobsRequest.Request.compressor",
			Rule: "plain and compressed items mix; the digest is that of the uncompressed bytes",
		},
		{
			Claim: "a_compressed_item_is_verified", Needs: []Feature{Cache, BatchZstd}, Run: checkItemZstdVerified, Source: "BatchUpdateBlobsRequest.Request.compressor",
			Rule: "items that do not decode, decode to other bytes or to more than their size get INVALID_ARGUMENT, and only they",
		},
		{
			Claim: "an_item_compressor_that_is_not_advertised_is_refused", Needs: cas, Run: checkItemForeignCompressor, Source: "CacheCapabilities.supported_batch_update_compressors",
			Rule: "INVALID_ARGUMENT, and the compressed bytes are not stored as if they were plain",
		},
		{
			Claim: "a_batch_read_uses_acceptable_compressors_only", Needs: cas, Run: checkAcceptable, Source: "BatchReadBlobsRequest.acceptable_compressors",
			Rule: "without acceptable compressors the data is plain; with zstd it is plain or zstd, and said which",
		},
		{
			Claim: "a_blob_over_the_size_limit_is_refused", Needs: []Feature{Cache, BlobLimit}, Run: checkBlobLimit, Source: "CacheCapabilities.max_cas_blob_size_bytes",
			Rule: "an upload that names a size above the limit gets INVALID_ARGUMENT, and at once",
		},
	}
}

func checkFindMissing(ctx context.Context, t T, s *Subject) {
	present := s.Put(ctx, t, s.Blob(1), s.Blob(50), s.Blob(5000))
	absent := []*repb.Digest{s.Unseen(), s.Unseen(), s.Unseen()}
	missing := s.Missing(ctx, t, absent[0], present[0], absent[1], present[1], present[2], absent[2])
	if !sameDigests(missing, absent) {
		t.Errorf("FindMissingBlobs lists %s, want %s", showAll(missing), showAll(absent))
	}
	if missing := s.Missing(ctx, t); len(missing) != 0 {
		t.Errorf("FindMissingBlobs of nothing lists %s", showAll(missing))
	}
}

// sameDigests compares as sets.
func sameDigests(a, b []*repb.Digest) bool {
	in := map[string]bool{}
	for _, d := range a {
		in[show(d)] = true
	}
	both := 0
	for _, d := range b {
		if !in[show(d)] {
			return false
		}
		both++
	}
	return both == len(in)
}

func checkFoundIsReadable(ctx context.Context, t T, s *Subject) {
	var blobs [][]byte
	for range 20 {
		blobs = append(blobs, s.Blob(700))
	}
	ds := s.Put(ctx, t, blobs...)
	if missing := s.Missing(ctx, t, ds...); len(missing) != 0 {
		t.Fatalf("FindMissingBlobs lists %s, which were just uploaded", showAll(missing))
	}
	for i, r := range s.batchRead(ctx, t, ds) {
		if r.GetStatus().GetCode() != 0 || !bytes.Equal(r.Data, blobs[i]) {
			t.Errorf("BatchReadBlobs of %s, which was found: %v, or other bytes", show(ds[i]), r.Status)
		}
		s.WantReadable(ctx, t, blobs[i])
	}
}

// batchRead makes a batch read that must succeed as a whole, responses in the order of ds.
func (s *Subject) batchRead(ctx context.Context, t T, ds []*repb.Digest) []*repb.BatchReadBlobsResponse_Response {
	t.Helper()
	resp, err := s.CAS.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{
		InstanceName: s.Instance, Digests: ds, DigestFunction: s.Function.Proto(),
	})
	if err != nil {
		t.Fatalf("BatchReadBlobs of %d digests: %v", len(ds), err)
	}
	by := map[string]*repb.BatchReadBlobsResponse_Response{}
	for _, r := range resp.Responses {
		by[show(r.Digest)] = r
	}
	var ordered []*repb.BatchReadBlobsResponse_Response
	for _, d := range ds {
		if by[show(d)] == nil {
			t.Fatalf("BatchReadBlobs has no response for %s", show(d))
		}
		ordered = append(ordered, by[show(d)])
	}
	return ordered
}

func checkFindMany(ctx context.Context, t T, s *Subject) {
	have := s.Put(ctx, t, s.Blob(33))[0]
	var ds []*repb.Digest
	for range 9_998 {
		ds = append(ds, s.Unseen())
	}
	missing := s.Missing(ctx, t, append(ds, have, have)...)
	if len(missing) != len(ds) {
		t.Errorf("FindMissingBlobs of 9,998 absent and twice one present digest lists %d", len(missing))
	}
}

// batchLimit is the advertised limit, or what gRPC allows where none is advertised.
func (s *Subject) batchLimit() int64 {
	if n := s.Capabilities.GetCacheCapabilities().GetMaxBatchTotalSizeBytes(); n > 0 {
		return n
	}
	return messageLimit
}

func checkOverLimit(ctx context.Context, t T, s *Subject) {
	limit := s.batchLimit()
	if limit > largestBatch {
		t.Skipf("the limit of %d bytes is more than this suite moves", limit)
	}
	n := int(limit/4) + 1000
	var blobs [][]byte
	req := &repb.BatchUpdateBlobsRequest{InstanceName: s.Instance, DigestFunction: s.Function.Proto()}
	read := &repb.BatchReadBlobsRequest{InstanceName: s.Instance, DigestFunction: s.Function.Proto()}
	for range 4 {
		b := s.Blob(n)
		blobs = append(blobs, b)
		req.Requests = append(req.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: s.Digest(b), Data: b})
		read.Digests = append(read.Digests, s.Digest(b))
	}
	over := fmt.Sprintf("of %d bytes in total, limit %d", 4*n, limit)
	_, err := s.CAS.BatchUpdateBlobs(ctx, req)
	wantCode(t, err, "BatchUpdateBlobs "+over, codes.InvalidArgument, codes.ResourceExhausted)
	for _, b := range blobs {
		if _, err := s.Write(ctx, s.WriteName(s.Digest(b)), b); err != nil {
			t.Fatalf("ByteStream.Write of %d bytes: %v", n, err)
		}
	}
	_, err = s.CAS.BatchReadBlobs(ctx, read)
	wantCode(t, err, "BatchReadBlobs "+over, codes.InvalidArgument, codes.ResourceExhausted)
}

func checkLimitTrue(ctx context.Context, t T, s *Subject) {
	limit := s.Capabilities.GetCacheCapabilities().GetMaxBatchTotalSizeBytes()
	switch {
	case limit == 0:
		t.Skipf("no limit is advertised; another check says why one should be")
	case limit > largestBatch:
		t.Errorf("the advertised limit of %d bytes is above any usual gRPC message limit (4 MiB)", limit)
		return
	}
	half := s.Blob(int(limit / 2))
	rest := s.Blob(int(limit) - len(half))
	ds := []*repb.Digest{s.Digest(half), s.Digest(rest)}
	resp, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: s.Instance, DigestFunction: s.Function.Proto(),
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: ds[0], Data: half}, {Digest: ds[1], Data: rest}},
	})
	if err != nil {
		t.Fatalf("BatchUpdateBlobs of exactly the advertised %d bytes: %v", limit, err)
	}
	for _, r := range resp.Responses {
		wantStatus(t, r.Status, "BatchUpdateBlobs of exactly the limit, item "+show(r.Digest), codes.OK)
	}
	for i, r := range s.batchRead(ctx, t, ds) {
		if !bytes.Equal(r.Data, [][]byte{half, rest}[i]) {
			t.Errorf("BatchReadBlobs of exactly the limit: %s has other bytes, status %v", show(ds[i]), r.Status)
		}
	}
}

func checkLimitNotZero(_ context.Context, t T, s *Subject) {
	if s.Capabilities.GetCacheCapabilities().GetMaxBatchTotalSizeBytes() <= 0 {
		t.Errorf("max_batch_total_size_bytes is %d, want a little under the server's gRPC message limit",
			s.Capabilities.GetCacheCapabilities().GetMaxBatchTotalSizeBytes())
	}
}

// batchUpdate makes a batch upload whose call must succeed and gives the status of each digest.
func (s *Subject) batchUpdate(ctx context.Context, t T, items ...*repb.BatchUpdateBlobsRequest_Request) map[string]codes.Code {
	t.Helper()
	resp, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: s.Instance, DigestFunction: s.Function.Proto(), Requests: items,
	})
	if err != nil {
		t.Fatalf("BatchUpdateBlobs of %d items, some of them wrong, fails as a whole: %v", len(items), err)
	}
	got := map[string]codes.Code{}
	for _, r := range resp.Responses {
		got[show(r.Digest)] = codes.Code(r.GetStatus().GetCode())
	}
	for _, i := range items {
		if _, answered := got[show(i.Digest)]; !answered {
			t.Fatalf("BatchUpdateBlobs has no response for %s", show(i.Digest))
		}
	}
	return got
}

func checkUpdateIndependent(ctx context.Context, t T, s *Subject) {
	good, bad, also := s.Blob(100), s.Blob(100), s.Blob(100)
	lie := s.Unseen()
	got := s.batchUpdate(ctx, t,
		&repb.BatchUpdateBlobsRequest_Request{Digest: s.Digest(good), Data: good},
		&repb.BatchUpdateBlobsRequest_Request{Digest: lie, Data: bad},
		&repb.BatchUpdateBlobsRequest_Request{Digest: s.Digest(also), Data: also})
	if got[show(lie)] != codes.InvalidArgument {
		t.Errorf("the item that does not match its digest got %s, want InvalidArgument", got[show(lie)])
	}
	if got[show(s.Digest(good))] != codes.OK || got[show(s.Digest(also))] != codes.OK {
		t.Errorf("the good neighbours of a bad item got %v", got)
	}
	s.WantReadable(ctx, t, good)
	s.WantReadable(ctx, t, also)
}

func checkUpdateAnswers(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	for range 2 {
		s.Put(ctx, t, data, s.Blob(100))
	}
}

func checkReadIndependent(ctx context.Context, t T, s *Subject) {
	blobs := [][]byte{s.Blob(10), s.Blob(2000)}
	ds := s.Put(ctx, t, blobs...)
	got := s.batchRead(ctx, t, []*repb.Digest{ds[0], s.Unseen(), ds[1], s.Empty()})
	wantStatus(t, got[1].Status, "BatchReadBlobs, the absent item", codes.NotFound)
	for i, want := range map[int][]byte{0: blobs[0], 2: blobs[1], 3: nil} {
		if got[i].GetStatus().GetCode() != 0 || !bytes.Equal(got[i].Data, want) {
			t.Errorf("BatchReadBlobs, item %d beside an absent one: %v, or other bytes", i, got[i].Status)
		}
	}
}

func checkUpdateVerified(ctx context.Context, t T, s *Subject) {
	data := s.Blob(100)
	for what, d := range map[string]*repb.Digest{
		"another hash":   s.Digest(s.Blob(100)),
		"a smaller size": {Hash: s.Digest(data).Hash, SizeBytes: 99},
		"a larger size":  {Hash: s.Digest(data).Hash, SizeBytes: 101},
	} {
		got := s.batchUpdate(ctx, t, &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: data})
		if got[show(d)] != codes.InvalidArgument {
			t.Errorf("BatchUpdateBlobs with %s got %s, want InvalidArgument", what, got[show(d)])
		}
		if len(s.Missing(ctx, t, d)) != 1 {
			t.Errorf("BatchUpdateBlobs with %s stored the blob", what)
		}
	}
}

func checkItemCompressor(ctx context.Context, t T, s *Subject) {
	plain, packed := s.Text(3000), s.Text(3000)
	got := s.batchUpdate(ctx, t,
		&repb.BatchUpdateBlobsRequest_Request{Digest: s.Digest(plain), Data: plain},
		&repb.BatchUpdateBlobsRequest_Request{Digest: s.Digest(packed), Data: compress(t, packed), Compressor: repb.Compressor_ZSTD})
	for d, code := range got {
		if code != codes.OK {
			t.Errorf("BatchUpdateBlobs of a plain and a compressed item: %s got %s", d, code)
		}
	}
	s.WantReadable(ctx, t, plain)
	s.WantReadable(ctx, t, packed)
}

func checkItemZstdVerified(ctx context.Context, t T, s *Subject) {
	good, other := s.Text(3000), s.Text(3000)
	frame := compress(t, s.Text(3000))
	torn, lie, bomb := s.Digest(s.Text(3000)), s.Digest(other), s.Digest(s.Blob(10))
	zstd := func(d *repb.Digest, data []byte) *repb.BatchUpdateBlobsRequest_Request {
		return &repb.BatchUpdateBlobsRequest_Request{Digest: d, Data: data, Compressor: repb.Compressor_ZSTD}
	}
	got := s.batchUpdate(ctx, t, zstd(torn, frame[:len(frame)-5]), zstd(lie, frame), zstd(bomb, zstdBomb(t)),
		zstd(s.Digest(good), compress(t, good)))
	for what, d := range map[string]*repb.Digest{"a torn frame": torn, "other bytes": lie, "a bomb": bomb} {
		if got[show(d)] != codes.InvalidArgument {
			t.Errorf("BatchUpdateBlobs of %s got %s, want InvalidArgument", what, got[show(d)])
		}
	}
	if code := got[show(s.Digest(good))]; code != codes.OK {
		t.Errorf("the good neighbour of bad items got %s", code)
	}
}

func checkItemForeignCompressor(ctx context.Context, t T, s *Subject) {
	data := s.Text(1000)
	resp, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: s.Instance, DigestFunction: s.Function.Proto(),
		Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: s.Digest(data), Data: data, Compressor: repb.Compressor_BROTLI}},
	})
	for _, c := range s.Capabilities.GetCacheCapabilities().GetSupportedBatchUpdateCompressors() {
		if c == repb.Compressor_BROTLI {
			t.Skipf("the server advertises brotli")
		}
	}
	if err == nil && len(resp.Responses) == 1 {
		wantStatus(t, resp.Responses[0].Status, "BatchUpdateBlobs of a brotli item", codes.InvalidArgument)
		return
	}
	wantCode(t, err, "BatchUpdateBlobs of a brotli item", codes.InvalidArgument)
}

func checkAcceptable(ctx context.Context, t T, s *Subject) {
	data := s.Text(50_000)
	d := s.Put(ctx, t, data)[0]
	for _, accept := range [][]repb.Compressor_Value{nil, {repb.Compressor_ZSTD}, {repb.Compressor_ZSTD, repb.Compressor_IDENTITY}, {repb.Compressor_BROTLI}} {
		resp, err := s.CAS.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{
			InstanceName: s.Instance, Digests: []*repb.Digest{d}, AcceptableCompressors: accept, DigestFunction: s.Function.Proto(),
		})
		if err != nil || len(resp.Responses) != 1 || resp.Responses[0].GetStatus().GetCode() != 0 {
			t.Errorf("BatchReadBlobs with acceptable compressors %v: %v, %v", accept, resp, err)
			continue
		}
		got, acceptable := resp.Responses[0].Data, resp.Responses[0].Compressor == repb.Compressor_IDENTITY
		for _, c := range accept {
			acceptable = acceptable || c == resp.Responses[0].Compressor
		}
		if !acceptable {
			t.Errorf("BatchReadBlobs with acceptable compressors %v used %s", accept, resp.Responses[0].Compressor)
		}
		if resp.Responses[0].Compressor == repb.Compressor_ZSTD {
			got = decompress(t, got)
		}
		if resp.Responses[0].Compressor != repb.Compressor_BROTLI && !proto.Equal(s.Digest(got), d) {
			t.Errorf("BatchReadBlobs with acceptable compressors %v gave other bytes", accept)
		}
	}
}

func checkBlobLimit(ctx context.Context, t T, s *Subject) {
	limit := s.Capabilities.GetCacheCapabilities().GetMaxCasBlobSizeBytes()
	d := &repb.Digest{Hash: s.Unseen().Hash, SizeBytes: limit + 1}
	ctx, cancel := context.WithTimeout(ctx, s.answerDeadline())
	defer cancel()
	stream, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	_ = stream.Send(&bspb.WriteRequest{ResourceName: s.WriteName(d), Data: s.Blob(1000)}) // an error comes with the answer
	_, err = answer(stream)
	wantCode(t, err, fmt.Sprintf("ByteStream.Write of %d bytes, limit %d", d.SizeBytes, limit), codes.InvalidArgument)
}
