package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/chunk"
)

// chunkChecks hold of SplitBlob and SpliceBlob, and of GetChunkMapping and RegisterChunkMapping,
// their streamed forms since version 2.13.
func chunkChecks() []Check {
	split, splice := []Feature{Cache, Split}, []Feature{Cache, Splice}
	return []Check{
		{
			Claim: "FastCDC_parameters_are_within_range", Needs: split, Run: checkFastCDCParameters, Source: "message FastCdc2020Params",
			Rule: "an advertised avg_chunk_size_bytes is between 1 KiB and 8 MiB",
		},
		{
			Claim: "split_chunks_concatenate_to_the_blob", Needs: split, Run: checkSplit, Source: "rpc GetChunkMapping, rpc SplitBlob",
			Rule: "the chunks are in the CAS and in order make the blob; with FastCDC 2020 all but the last are between avg/4 and 4*avg",
		},
		{
			Claim: "FastCDC_chunks_are_cut_where_FastCDC_2020_cuts", Needs: split, Run: checkSplitCuts, Source: "message FastCdc2020Params: MUST follow the paper, normalisation 2",
			Rule: "chunks named FAST_CDC_2020 end where the algorithm ends them, for the advertised average and seed: else nobody shares chunks",
		},
		{
			Claim: "a_split_is_stable_under_insertion", Needs: split, Level: Should, Run: checkSplitStable, Source: "rpc GetChunkMapping: content-defined",
			Rule: "a byte inserted at the front changes the first chunks and not the rest",
		},
		{
			Claim: "splitting_an_absent_blob_is_NOT_FOUND", Needs: split, Run: checkSplitAbsent, Source: "rpc GetChunkMapping, Errors",
			Rule: "NOT_FOUND for a blob the CAS does not have",
		},
		{
			Claim: "a_splice_makes_the_blob", Needs: splice, Run: checkSplice, Source: "rpc RegisterChunkMapping, rpc SpliceBlob",
			Rule: "chunks in the CAS become a blob that reads as any other, and the response names it",
		},
		{
			Claim: "a_splice_of_small_chunks_and_repetitions", Needs: splice, Run: checkSpliceOdd, Source: "ChunkingFunction.UNKNOWN",
			Rule: "chunks may be of any size and repeat: with UNKNOWN the server only verifies the whole",
		},
		{
			Claim: "a_splice_is_verified", Needs: splice, Run: checkSpliceVerified, Source: "rpc RegisterChunkMapping: MUST verify",
			Rule: "chunks that do not make the named blob get INVALID_ARGUMENT, and nothing is stored",
		},
		{
			Claim: "a_splice_with_an_absent_chunk_is_NOT_FOUND", Needs: splice, Run: checkSpliceAbsent, Source: "rpc RegisterChunkMapping, Errors",
			Rule: "NOT_FOUND when a chunk is not in the CAS",
		},
	}
}

// chunkForm is one of the two forms in which chunking is offered.
type chunkForm struct {
	name   string
	split  func(ctx context.Context, d *repb.Digest) ([]*repb.Digest, repb.ChunkingFunction_Value, error)
	splice func(ctx context.Context, d *repb.Digest, chunks []*repb.Digest) (*repb.Digest, error)
}

// chunkForms lists the forms that the advertised API versions promise: SplitBlob and SpliceBlob up
// to 2.12, the streamed ones from 2.13 on. A server of both ranges answers to both.
func (s *Subject) chunkForms() []chunkForm {
	var forms []chunkForm
	if low := s.Capabilities.GetLowApiVersion(); low.GetMajor() == 2 && low.GetMinor() <= 12 {
		forms = append(forms, chunkForm{"SplitBlob/SpliceBlob", s.splitUnary, s.spliceUnary})
	}
	if high := s.Capabilities.GetHighApiVersion(); high.GetMajor() > 2 || high.GetMinor() >= 13 {
		forms = append(forms, chunkForm{"GetChunkMapping/RegisterChunkMapping", s.splitStream, s.spliceStream})
	}
	return forms
}

func (s *Subject) splitUnary(ctx context.Context, d *repb.Digest) ([]*repb.Digest, repb.ChunkingFunction_Value, error) {
	resp, err := s.CAS.SplitBlob(ctx, &repb.SplitBlobRequest{
		InstanceName: s.Instance, BlobDigest: d, DigestFunction: s.Function.Proto(), ChunkingFunction: s.preferred(),
	})
	return resp.GetChunkDigests(), resp.GetChunkingFunction(), err
}

func (s *Subject) splitStream(ctx context.Context, d *repb.Digest) ([]*repb.Digest, repb.ChunkingFunction_Value, error) {
	stream, err := s.CAS.GetChunkMapping(ctx, &repb.GetChunkMappingRequest{
		InstanceName: s.Instance, BlobDigest: d, DigestFunction: s.Function.Proto(), ChunkingFunction: s.preferred(),
	})
	if err != nil {
		return nil, 0, err
	}
	var chunks []*repb.Digest
	var fn repb.ChunkingFunction_Value
	for first := true; ; first = false {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return chunks, fn, nil
		}
		if err != nil {
			return chunks, fn, err
		}
		if first {
			fn = resp.ChunkingFunction
		}
		chunks = append(chunks, resp.ChunkDigests...)
	}
}

func (s *Subject) spliceUnary(ctx context.Context, d *repb.Digest, chunks []*repb.Digest) (*repb.Digest, error) {
	resp, err := s.CAS.SpliceBlob(ctx, &repb.SpliceBlobRequest{
		InstanceName: s.Instance, BlobDigest: d, ChunkDigests: chunks, DigestFunction: s.Function.Proto(),
	})
	return resp.GetBlobDigest(), err
}

func (s *Subject) spliceStream(ctx context.Context, d *repb.Digest, chunks []*repb.Digest) (*repb.Digest, error) {
	var stream grpc.ClientStreamingClient[repb.RegisterChunkMappingRequest, repb.RegisterChunkMappingResponse]
	stream, err := s.CAS.RegisterChunkMapping(ctx)
	if err != nil {
		return nil, err
	}
	half := len(chunks) / 2
	for _, req := range []*repb.RegisterChunkMappingRequest{
		{InstanceName: s.Instance, BlobDigest: d, DigestFunction: s.Function.Proto(), ChunkDigests: chunks[:half]},
		{}, // an empty list is allowed in any request
		{ChunkDigests: chunks[half:]},
	} {
		if err := stream.Send(req); err != nil {
			break // the server has answered: its answer follows
		}
	}
	resp, err := stream.CloseAndRecv()
	return resp.GetBlobDigest(), err
}

// preferred is FastCDC 2020 where it is advertised.
func (s *Subject) preferred() repb.ChunkingFunction_Value {
	if s.Capabilities.GetCacheCapabilities().GetFastCdc_2020Params() != nil {
		return repb.ChunkingFunction_FAST_CDC_2020
	}
	return repb.ChunkingFunction_UNKNOWN
}

func checkFastCDCParameters(_ context.Context, t T, s *Subject) {
	p := s.Capabilities.GetCacheCapabilities().GetFastCdc_2020Params()
	if p == nil {
		t.Skipf("the server advertises no FastCDC parameters")
	}
	if p.AvgChunkSizeBytes < 1<<10 || p.AvgChunkSizeBytes > 8<<20 {
		t.Errorf("avg_chunk_size_bytes is %d, want 1 KiB to 8 MiB", p.AvgChunkSizeBytes)
	}
}

// eachForm runs check for each form the server promises.
func (s *Subject) eachForm(t T, check func(chunkForm)) {
	t.Helper()
	forms := s.chunkForms()
	if len(forms) == 0 {
		t.Skipf("the advertised API versions have neither SplitBlob nor GetChunkMapping")
	}
	for _, f := range forms {
		check(f)
	}
}

func checkSplit(ctx context.Context, t T, s *Subject) {
	data := s.Blob(6 << 20)
	d := s.Put(ctx, t, data)[0]
	s.eachForm(t, func(f chunkForm) {
		chunks, fn, err := f.split(ctx, d)
		if err != nil || len(chunks) == 0 {
			t.Errorf("%s: split of %s: %d chunks, %v", f.name, show(d), len(chunks), err)
			return
		}
		if missing := s.Missing(ctx, t, chunks...); len(missing) != 0 {
			t.Errorf("%s: %d of %d chunks are not in the CAS", f.name, len(missing), len(chunks))
			return
		}
		var joined bytes.Buffer
		for i, c := range chunks {
			joined.Write(s.Get(ctx, t, c))
			s.wantChunkSize(t, fn, c.SizeBytes, i == len(chunks)-1)
		}
		if !bytes.Equal(joined.Bytes(), data) {
			t.Errorf("%s: the %d chunks in order do not make the blob", f.name, len(chunks))
		}
	})
}

// wantChunkSize holds a chunk against the advertised FastCDC parameters.
func (s *Subject) wantChunkSize(t T, fn repb.ChunkingFunction_Value, size int64, last bool) {
	t.Helper()
	avg := int64(s.Capabilities.GetCacheCapabilities().GetFastCdc_2020Params().GetAvgChunkSizeBytes())
	if fn != repb.ChunkingFunction_FAST_CDC_2020 || avg == 0 {
		return
	}
	if size > 4*avg || size < avg/4 && !last {
		t.Errorf("a FastCDC chunk of %d bytes, average %d: want %d to %d", size, avg, avg/4, 4*avg)
	}
}

func checkSplitCuts(ctx context.Context, t T, s *Subject) {
	p := s.Capabilities.GetCacheCapabilities().GetFastCdc_2020Params()
	params := chunk.Params{Average: int64(p.GetAvgChunkSizeBytes()), Seed: p.GetSeed()}
	if p == nil || params.Validate() != nil {
		t.Skipf("the server advertises no FastCDC parameters, or none within range: %v", p)
	}
	data := s.Blob(int(min(24*params.Average, 24<<20)))
	d := s.Put(ctx, t, data)[0]
	s.eachForm(t, func(f chunkForm) {
		got, fn, err := f.split(ctx, d)
		if err != nil || fn != repb.ChunkingFunction_FAST_CDC_2020 {
			t.Skipf("%s: the server advertises FastCDC and answers with %s, %v", f.name, fn, err)
		}
		cutter := chunk.New(bytes.NewReader(data), params)
		for i := 0; ; i++ {
			want, err := cutter.Next()
			if err != nil {
				return // the end of the data
			}
			if i >= len(got) || !proto.Equal(got[i], s.Digest(want)) {
				t.Errorf("%s: chunk %d of %d is not the %d bytes that FastCDC 2020 cuts", f.name, i, len(got), len(want))
				return
			}
		}
	})
}

func checkSplitStable(ctx context.Context, t T, s *Subject) {
	data := s.Blob(8 << 20)
	shifted := append([]byte{42}, data...)
	ds := s.Put(ctx, t, data, shifted)
	s.eachForm(t, func(f chunkForm) {
		before, _, err := f.split(ctx, ds[0])
		after, _, err2 := f.split(ctx, ds[1])
		if err != nil || err2 != nil {
			t.Errorf("%s: split: %v, %v", f.name, err, err2)
			return
		}
		known, shared := map[string]bool{}, int64(0)
		for _, c := range before {
			known[show(c)] = true
		}
		for _, c := range after {
			if known[show(c)] {
				shared += c.SizeBytes
			}
		}
		if len(before) > 3 && shared < int64(len(data))/4 {
			t.Errorf("%s: a byte in front leaves %d of %d bytes in known chunks", f.name, shared, len(data))
		}
	})
}

func checkSplitAbsent(ctx context.Context, t T, s *Subject) {
	s.eachForm(t, func(f chunkForm) {
		_, _, err := f.split(ctx, s.Unseen())
		wantCode(t, err, f.name+": split of an absent blob", codes.NotFound)
	})
}

// wantSpliced splices chunks and reads the blob back.
func (s *Subject) wantSpliced(ctx context.Context, t T, f chunkForm, chunks ...[]byte) {
	t.Helper()
	data := bytes.Join(chunks, nil)
	d := s.Digest(data)
	got, err := f.splice(ctx, d, s.Put(ctx, t, chunks...))
	if err != nil {
		t.Errorf("%s: splice of %d chunks: %v", f.name, len(chunks), err)
		return
	}
	if !proto.Equal(got, d) {
		t.Errorf("%s: splice answered with digest %s, want %s", f.name, show(got), show(d))
	}
	if missing := s.Missing(ctx, t, d); len(missing) != 0 {
		t.Errorf("%s: the spliced blob is missing", f.name)
	}
	s.WantReadable(ctx, t, data)
}

func checkSplice(ctx context.Context, t T, s *Subject) {
	s.eachForm(t, func(f chunkForm) {
		s.wantSpliced(ctx, t, f, s.Blob(600_000), s.Blob(700_000), s.Blob(900_000), s.Blob(100))
	})
}

func checkSpliceOdd(ctx context.Context, t T, s *Subject) {
	s.eachForm(t, func(f chunkForm) {
		same := s.Blob(10)
		s.wantSpliced(ctx, t, f, same, s.Blob(1), same, same)
	})
}

func checkSpliceVerified(ctx context.Context, t T, s *Subject) {
	s.eachForm(t, func(f chunkForm) {
		a, b := s.Blob(1000), s.Blob(1000)
		ds := s.Put(ctx, t, a, b)
		for what, d := range map[string]*repb.Digest{
			"another blob of that size": s.Digest(s.Blob(2000)),
			"the right hash, size + 1":  {Hash: s.Digest(append(bytes.Clone(a), b...)).Hash, SizeBytes: 2001},
			"the other order":           s.Digest(append(bytes.Clone(b), a...)),
		} {
			_, err := f.splice(ctx, d, ds)
			wantCode(t, err, f.name+": splice named as "+what, codes.InvalidArgument)
			if len(s.Missing(ctx, t, d)) == 0 {
				t.Errorf("%s: splice named as %s stored a blob", f.name, what)
			}
		}
	})
}

func checkSpliceAbsent(ctx context.Context, t T, s *Subject) {
	s.eachForm(t, func(f chunkForm) {
		a, absent := s.Blob(1000), s.Blob(1000)
		d := s.Put(ctx, t, a)[0]
		_, err := f.splice(ctx, s.Digest(append(bytes.Clone(a), absent...)), []*repb.Digest{d, s.Digest(absent)})
		wantCode(t, err, f.name+": splice with an absent chunk", codes.NotFound)
	})
}
