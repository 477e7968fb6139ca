package reapi

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
)

func TestReadRanges(t *testing.T) {
	e := start(t)
	data := content(readChunk+10, 1)
	d := e.put(t, digest.SHA256, data)
	size := int64(len(data))
	for _, c := range []struct {
		offset, limit int64
		want          []byte
		code          codes.Code
	}{
		{0, 0, data, codes.OK},
		{5, 7, data[5:12], codes.OK},
		{5, 0, data[5:], codes.OK},
		{size - 3, 1 << 62, data[size-3:], codes.OK},
		{size, 0, nil, codes.OK},
		{0, 1<<63 - 1, data, codes.OK},
		{size + 1, 0, nil, codes.OutOfRange},
		{-1, 0, nil, codes.OutOfRange},
		{0, -1, nil, codes.InvalidArgument},
	} {
		got, err := e.read(t, &bspb.ReadRequest{ResourceName: BlobName(d), ReadOffset: c.offset, ReadLimit: c.limit})
		wantCode(t, err, c.code)
		if !bytes.Equal(got, c.want) {
			t.Errorf("offset %d, limit %d: %d bytes, want %d", c.offset, c.limit, len(got), len(c.want))
		}
	}
	for _, comp := range Compressors() {
		name := "compressed-blobs/" + comp.String() + strings.TrimPrefix(BlobName(d), "blobs")
		got, err := e.read(t, &bspb.ReadRequest{ResourceName: name, ReadOffset: 77})
		if err != nil || !bytes.Equal(unpack(t, comp, got), data[77:]) {
			t.Errorf("%s from an offset: %v", comp, err)
		}
		_, err = e.read(t, &bspb.ReadRequest{ResourceName: name, ReadLimit: 1})
		wantCode(t, err, codes.InvalidArgument)
		_, err = e.read(t, &bspb.ReadRequest{ResourceName: name, ReadOffset: size + 1})
		wantCode(t, err, codes.OutOfRange)
	}
	_, err := e.read(t, &bspb.ReadRequest{ResourceName: BlobName(abc)})
	wantCode(t, err, codes.NotFound)
	_, err = e.read(t, &bspb.ReadRequest{ResourceName: "blobs/x/3"})
	wantCode(t, err, codes.InvalidArgument)
}

func TestEmptyBlobOnEveryPath(t *testing.T) {
	e := start(t)
	for _, fn := range digest.Functions() {
		d := fn.Empty()
		if got, err := e.read(t, &bspb.ReadRequest{ResourceName: BlobName(d)}); err != nil || len(got) != 0 {
			t.Errorf("%s read: %d bytes, %v", fn, len(got), err)
		}
		for _, c := range Compressors() {
			got, err := e.read(t, &bspb.ReadRequest{ResourceName: "compressed-blobs/" + c.String() + strings.TrimPrefix(BlobName(d), "blobs")})
			if err != nil || len(got) == 0 || len(unpack(t, c, got)) != 0 {
				t.Errorf("%s read %s: %d bytes, %v", fn, c, len(got), err)
			}
			if r, err := e.write(t, uploadName(d, c), pack(t, c, nil), 99); err != nil || r.CommittedSize != -1 {
				t.Errorf("%s write %s: %v, %v", fn, c, r, err)
			}
		}
		if r, err := e.write(t, uploadName(d, Identity), nil, 99); err != nil || r.CommittedSize != 0 {
			t.Errorf("%s write: %v, %v", fn, r, err)
		}
		q, err := e.streams.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: uploadName(d, Identity)})
		if err != nil || !q.Complete {
			t.Errorf("%s status: %v, %v", fn, q, err)
		}
	}
}

func TestWriteRefusesWhatIsWrong(t *testing.T) {
	data := content(5000, 1)
	d := digest.SHA256.Of(data)
	name := uploadName(d, Identity)
	message := func(name string, offset int64, data []byte, finish bool) *bspb.WriteRequest {
		return &bspb.WriteRequest{ResourceName: name, WriteOffset: offset, Data: data, FinishWrite: finish}
	}
	wrongSize := digest.New(digest.SHA256, d.Hash(), 4999)
	for what, messages := range map[string][]*bspb.WriteRequest{
		"no message":             {},
		"no name":                {message("", 0, data, true)},
		"bad name":               {message("uploads/u/blobs/x/1", 0, data, true)},
		"other bytes":            {message(name, 0, content(5000, 2), true)},
		"too few":                {message(name, 0, data[:4999], true)},
		"too many":               {message(name, 0, append(data[:5000:5000], 0), true)},
		"wrong size":             {message(uploadName(wrongSize, Identity), 0, data, true)},
		"begins later":           {message(name, 5, data[5:], true)},
		"negative offset":        {message(name, -5, data, true)},
		"gap":                    {message(name, 0, data[:10], false), message("", 11, data[10:], true)},
		"overlap":                {message(name, 0, data[:10], false), message("", 9, data[10:], true)},
		"another name":           {message(name, 0, data[:10], false), message(name+"/x", 10, data[10:], true)},
		"zstd of other bytes":    {message(uploadName(d, Zstd), 0, pack(t, Zstd, content(5000, 2)), true)},
		"zstd that is none":      {message(uploadName(d, Zstd), 0, data, true)},
		"zstd cut off":           {message(uploadName(d, Zstd), 0, pack(t, Zstd, data)[:100], true)},
		"zstd of too much":       {message(uploadName(d, Zstd), 0, pack(t, Zstd, append(data[:5000:5000], 0)), true)},
		"deflate cut off":        {message(uploadName(d, Deflate), 0, pack(t, Deflate, data)[:100], true)},
		"deflate and more":       {message(uploadName(d, Deflate), 0, append(pack(t, Deflate, data), 1), true)},
		"deflate and more later": {message(uploadName(d, Deflate), 0, pack(t, Deflate, data), false), message("", int64(len(pack(t, Deflate, data))), []byte{1}, true)},
	} {
		t.Run(what, func(t *testing.T) {
			e := start(t)
			stream, err := e.streams.Write(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				if stream.Send(m) != nil {
					break
				}
			}
			_, err = stream.CloseAndRecv()
			wantCode(t, err, codes.InvalidArgument)
			if e.store.Contains(d) {
				t.Error("the blob is stored")
			}
		})
	}
}

func TestNothingAfterFinishWrite(t *testing.T) {
	e := start(t)
	stream, err := e.streams.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for offset := range int64(2) {
		if err := stream.Send(&bspb.WriteRequest{ResourceName: uploadName(abc, Identity), WriteOffset: 3 * offset, Data: []byte("abc"), FinishWrite: true}); err != nil {
			break
		}
	}
	_, err = stream.CloseAndRecv()
	wantCode(t, err, codes.InvalidArgument)
}

func TestLargeUploadIsRefusedBeforeItsBytes(t *testing.T) {
	e := start(t, func(c *Config) { c.Limits.MaxBlob = 1000 })
	data := content(1001, 1)
	for _, c := range append(Compressors(), Identity) {
		_, err := e.write(t, uploadName(digest.SHA256.Of(data), c), data, 10)
		wantCode(t, err, codes.InvalidArgument)
	}
}

func TestPresentBlobFinishesAtOnce(t *testing.T) {
	e := start(t)
	data := content(3000, 1)
	d := e.put(t, digest.SHA256, data)
	if r, err := e.write(t, uploadName(d, Identity), data, 10); err != nil || r.CommittedSize != 3000 {
		t.Errorf("plain: %v, %v", r, err)
	}
	for _, c := range Compressors() {
		if r, err := e.write(t, uploadName(d, c), pack(t, c, data), 10); err != nil || r.CommittedSize != -1 {
			t.Errorf("%s: %v, %v", c, r, err)
		}
	}
}

// TestConcurrentUploadFinishesEarly completes a blob by another way while a stream is half through.
func TestConcurrentUploadFinishesEarly(t *testing.T) {
	for _, c := range append(Compressors(), Identity) {
		e := start(t)
		data := content(3000, 1)
		d := digest.SHA256.Of(data)
		wire, want := data, int64(len(data))
		if c != Identity {
			wire, want = pack(t, c, data), -1
		}
		stream, err := e.streams.Write(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&bspb.WriteRequest{ResourceName: uploadName(d, c), Data: wire[:100]}); err != nil {
			t.Fatal(err)
		}
		e.await(t, func() bool { return e.store.Stat().Reserved > 0 })
		e.put(t, digest.SHA256, data)
		// The next message makes the server look again; a server that finished already is as good.
		_ = stream.Send(&bspb.WriteRequest{WriteOffset: 100, Data: wire[100:200]})
		if r, err := stream.CloseAndRecv(); err != nil || r.CommittedSize != want {
			t.Errorf("%s: %v, %v, want %d", c, r, err, want)
		}
	}
}

// await waits for what the server does in its own time.
func (e *endpoint) await(t testing.TB, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatal("does not come")
		}
		runtime.Gosched()
	}
}

// status asks for a write's status.
func (e *endpoint) status(t testing.TB, name string) *bspb.QueryWriteStatusResponse {
	t.Helper()
	q, err := e.streams.QueryWriteStatus(t.Context(), &bspb.QueryWriteStatusRequest{ResourceName: name})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestResume(t *testing.T) {
	for _, c := range append(Compressors(), Identity) {
		t.Run(c.String(), func(t *testing.T) {
			e := start(t)
			data := content(3000, 1)
			d := digest.SHA256.Of(data)
			name := uploadName(d, c)
			part := func(b []byte) []byte {
				if c == Identity {
					return b
				}
				return pack(t, c, b)
			}
			if q := e.status(t, name); q.CommittedSize != 0 || q.Complete {
				t.Errorf("before: %v", q)
			}
			// A client that ends its stream without finish_write: the rest follows in another.
			if _, err := e.writeFrom(t, name, 0, part(data[:1000]), 999, false); err != nil {
				t.Fatal(err)
			}
			if q := e.status(t, name); q.CommittedSize != 1000 || q.Complete {
				t.Errorf("between: %v", q)
			}
			_, err := e.writeFrom(t, name, 500, part(data[500:]), 999, true)
			wantCode(t, err, codes.InvalidArgument)
			if _, err := e.writeFrom(t, name, 1000, part(data[1000:]), 999, true); err != nil {
				t.Fatal(err)
			}
			if q := e.status(t, name); q.CommittedSize != 3000 || !q.Complete {
				t.Errorf("after: %v", q)
			}
			if got, err := e.read(t, &bspb.ReadRequest{ResourceName: BlobName(d)}); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestWriteFromTheBeginningReplacesWhatWasWritten(t *testing.T) {
	e := start(t)
	data := content(3000, 1)
	name := uploadName(digest.SHA256.Of(data), Identity)
	if _, err := e.writeFrom(t, name, 0, content(1000, 9), 999, false); err != nil {
		t.Fatal(err)
	}
	if _, err := e.write(t, name, data, 999); err != nil {
		t.Error(err)
	}
}

// TestBrokenUploadIsResumed cuts the client's stream, which leaves what was received to go on from.
func TestBrokenUploadIsResumed(t *testing.T) {
	e := start(t)
	data := content(300_000, 1)
	name := uploadName(digest.SHA256.Of(data), Identity)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := e.streams.Write(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&bspb.WriteRequest{ResourceName: name, Data: data[:100_000]}); err != nil {
		t.Fatal(err)
	}
	e.await(t, func() bool { return e.status(t, name).CommittedSize == 100_000 })
	cancel()
	e.await(t, func() bool { return e.server.uploads.idleCount() == 1 })
	if _, err := e.writeFrom(t, name, 100_000, data[100_000:], 50_000, true); err != nil {
		t.Fatal(err)
	}
	if got, err := e.read(t, &bspb.ReadRequest{ResourceName: BlobName(digest.SHA256.Of(data))}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func (u *Uploads) idleCount() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.idle.Len()
}

// TestSecondStreamOfANameIsItsOwn writes by one name from two streams at once.
func TestSecondStreamOfANameIsItsOwn(t *testing.T) {
	e := start(t)
	data := content(3000, 1)
	name := uploadName(digest.SHA256.Of(data), Identity)
	slow, err := e.streams.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := slow.Send(&bspb.WriteRequest{ResourceName: name, Data: data[:1000]}); err != nil {
		t.Fatal(err)
	}
	e.await(t, func() bool { return e.status(t, name).CommittedSize == 1000 })
	_, err = e.writeFrom(t, name, 1000, data[1000:], 999, true)
	wantCode(t, err, codes.Unavailable)
	if _, err := e.write(t, name, data, 999); err != nil {
		t.Error(err)
	}
	if r, err := slow.CloseAndRecv(); err != nil || r.CommittedSize == 0 {
		t.Errorf("slow stream: %v, %v", r, err)
	}
}

// TestSlowReader stops reading in the middle and goes away: the harness sees whether anything is left.
func TestSlowReader(t *testing.T) {
	for _, name := range []string{"blobs", "compressed-blobs/zstd"} {
		e := start(t)
		d := e.put(t, digest.SHA256, content(8<<20, 1))
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := e.streams.Read(ctx, &bspb.ReadRequest{ResourceName: name + strings.TrimPrefix(BlobName(d), "blobs")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if e.store.Stat().Pinned != 1 {
			t.Error("nothing holds the blob that is being read")
		}
		cancel()
		e.await(t, func() bool { return e.store.Stat().Pinned == 0 })
	}
}

// TestBombs shows that neither a stream nor a batch ever makes more bytes than it declares, nor asks
// for more memory than maxWindow.
func TestBombs(t *testing.T) {
	zeros := make([]byte, 64<<20)
	bomb := pack(t, Zstd, zeros)
	e := start(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := e.write(t, uploadName(digest.New(digest.SHA256, abc.Hash(), 100), Zstd), bomb, 1<<10)
	wantCode(t, err, codes.InvalidArgument)
	p, err := newPacker()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, c := range Compressors() {
		if _, err := p.decompress(c, pack(t, c, zeros), 100); err == nil {
			t.Errorf("%s: 64 MiB fit into 100 bytes", c)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > 64<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
	// A frame header that declares a window of 2 GiB, RFC 8878 section 3.1.1.1.
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00}
	if err := p.expand(Zstd, io.Discard, bytes.NewReader(window)); err == nil {
		t.Error("a window of 2 GiB is accepted")
	}
}

func newUploads(t *testing.T, l Limits) (*Uploads, *casfake.Store) {
	t.Helper()
	store := casfake.New(cas.Options{})
	return NewUploads(l), store
}

// parked leaves a partial upload of a blob of size bytes.
func parked(t *testing.T, u *Uploads, store Streams, name string, size int64) {
	t.Helper()
	p, err := u.begin(t.Context(), store, name, digest.New(digest.SHA256, abc.Hash(), size), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	u.park(p)
}

func TestIdleUploadsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, store := newUploads(t, Limits{IdleFor: time.Minute})
		defer u.Close()
		parked(t, u, store, "first", 10)
		time.Sleep(30 * time.Second)
		parked(t, u, store, "second", 10)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if u.committed("first") != 0 || u.committed("second") != 1 {
			t.Errorf("after 61 s: %d, %d bytes", u.committed("first"), u.committed("second"))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if u.committed("second") != 0 || store.Stat().Reserved != 0 {
			t.Errorf("after 91 s: %d bytes, %d reserved", u.committed("second"), store.Stat().Reserved)
		}
		parked(t, u, store, "third", 10)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if u.committed("third") != 0 {
			t.Error("nothing expires after all had expired")
		}
	})
}

func TestIdleUploadsAreBounded(t *testing.T) {
	u, store := newUploads(t, Limits{MaxIdle: 2, MaxIdleBytes: 100})
	for _, name := range []string{"a", "b", "c"} {
		parked(t, u, store, name, 10)
	}
	if u.committed("a") != 0 || u.committed("b") != 1 || u.committed("c") != 1 {
		t.Error("the longest idle of three does not make room")
	}
	parked(t, u, store, "d", 95)
	if u.committed("b") != 0 || u.committed("c") != 0 || u.committed("d") != 1 {
		t.Error("bytes are not bounded")
	}
	parked(t, u, store, "e", 101)
	if u.committed("e") != 0 || store.Stat().Reserved != 0 {
		t.Errorf("one larger than all is kept; %d bytes reserved", store.Stat().Reserved)
	}
	u.Close()
	parked(t, u, store, "f", 10)
	if u.committed("f") != 0 || store.Stat().Reserved != 0 {
		t.Error("closed, but keeps")
	}
}
