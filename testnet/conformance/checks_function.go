package conformance

import (
	"context"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc/codes"
)

// functionChecks hold of digest functions.
func functionChecks() []Check {
	cas, blake := []Feature{Cache}, []Feature{Cache, Blake3}
	return []Check{
		{
			Claim: "every_advertised_function_stores_and_reads", Needs: cas, Run: checkFunctions, Source: "CacheCapabilities.digest_functions",
			Rule: "blobs are stored, found and read in each advertised digest function",
		},
		{
			Claim: "an_unset_function_is_inferred_from_the_hash_length", Needs: cas, Run: checkUnsetFunction, Source: "FindMissingBlobsRequest.digest_function",
			Rule: "functions without a segment of their own in resource names may be left unset",
		},
		{
			Claim: "BLAKE3_is_never_inferred", Needs: blake, Run: checkNeverBlake3, Source: "FindMissingBlobsRequest.digest_function; DigestFunction.BLAKE3",
			Rule: "64 hexadecimal digits without a function are SHA256: a blob known by its BLAKE3 hash is not found without the function",
		},
		{
			Claim: "a_function_that_is_not_advertised_is_refused", Needs: cas, Run: checkForeignFunction, Source: "CacheCapabilities.digest_functions",
			Rule: "a request that names a function the server does not advertise gets INVALID_ARGUMENT",
		},
	}
}

func checkFunctions(ctx context.Context, t T, s *Subject) {
	if len(s.Functions()) == 0 {
		t.Fatalf("none of the advertised functions %v is known to this suite", s.Capabilities.GetCacheCapabilities().GetDigestFunctions())
	}
	for _, f := range s.Functions() {
		s := s.With(f)
		batch, stream := s.Blob(200), s.Blob(100_000)
		s.Put(ctx, t, batch)
		if n, err := s.Write(ctx, s.WriteName(s.Digest(stream)), stream); err != nil || n != int64(len(stream)) {
			t.Errorf("%s: ByteStream.Write: committed %d, %v", f, n, err)
		}
		if missing := s.Missing(ctx, t, s.Digest(batch), s.Digest(stream)); len(missing) != 0 {
			t.Errorf("%s: FindMissingBlobs lists %s, which were uploaded", f, showAll(missing))
		}
		s.WantReadable(ctx, t, batch)
		s.WantReadable(ctx, t, stream)
	}
}

func checkUnsetFunction(ctx context.Context, t T, s *Subject) {
	for _, f := range s.Functions() {
		if f == BLAKE3 {
			continue
		}
		data := s.Blob(200)
		d := f.Of(data)
		up, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
			InstanceName: s.Instance, Requests: []*repb.BatchUpdateBlobsRequest_Request{{Digest: d, Data: data}},
		})
		if err != nil || len(up.Responses) != 1 {
			t.Errorf("%s: BatchUpdateBlobs with the function unset: %v", f, err)
			continue
		}
		wantStatus(t, up.Responses[0].Status, f.String()+": BatchUpdateBlobs with the function unset", codes.OK)
		find, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{InstanceName: s.Instance, BlobDigests: []*repb.Digest{d}})
		if err != nil || len(find.MissingBlobDigests) != 0 {
			t.Errorf("%s: FindMissingBlobs with the function unset: %v, %v, want nothing missing", f, find, err)
		}
		s.With(f).WantReadable(ctx, t, data)
	}
}

func checkNeverBlake3(ctx context.Context, t T, s *Subject) {
	blake := s.With(BLAKE3)
	data := s.Blob(200)
	d := blake.Put(ctx, t, data)[0]
	find, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{InstanceName: s.Instance, BlobDigests: []*repb.Digest{d}})
	if err == nil && len(find.MissingBlobDigests) == 0 {
		t.Errorf("FindMissingBlobs with the function unset finds a blob by its BLAKE3 hash")
	}
	plain := s.inst("blobs/" + show(d))
	if _, err := s.Read(ctx, plain, 0, 0); err == nil {
		t.Errorf("ByteStream.Read of %s finds a blob by its BLAKE3 hash, without the segment blake3", plain)
	}
	other := s.Blob(200)
	up, err := s.CAS.BatchUpdateBlobs(ctx, &repb.BatchUpdateBlobsRequest{
		InstanceName: s.Instance,
		Requests:     []*repb.BatchUpdateBlobsRequest_Request{{Digest: blake.Digest(other), Data: other}},
	})
	if err == nil && len(up.Responses) == 1 && up.Responses[0].GetStatus().GetCode() == 0 {
		t.Errorf("BatchUpdateBlobs with the function unset takes a blob by its BLAKE3 hash")
	}
}

func checkForeignFunction(ctx context.Context, t T, s *Subject) {
	for _, v := range []repb.DigestFunction_Value{repb.DigestFunction_MD5, repb.DigestFunction_SHA1, repb.DigestFunction_SHA512, 99} {
		if s.advertises(v) {
			continue
		}
		f, known := functionOf(v)
		if !known {
			f = SHA256
		}
		_, err := s.CAS.FindMissingBlobs(ctx, &repb.FindMissingBlobsRequest{
			InstanceName: s.Instance, DigestFunction: v, BlobDigests: []*repb.Digest{f.Of(s.Blob(10))},
		})
		wantCode(t, err, "FindMissingBlobs in "+v.String()+", which is not advertised", codes.InvalidArgument)
	}
}

// advertises reports whether the cache offers digest function v.
func (s *Subject) advertises(v repb.DigestFunction_Value) bool {
	for _, a := range s.Capabilities.GetCacheCapabilities().GetDigestFunctions() {
		if a == v {
			return true
		}
	}
	return false
}
