package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/lease"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// withheld is the instance that the first node of these tests does not share.
const withheld = "secret"

// keeper is a node that does not share the instance withheld, nor what is called *.key.
func keeper(t testing.TB, dir string) *started {
	t.Helper()
	return executing(t, dir, slices.Concat(lender, []string{"node.name=ana", "mesh.no_share=*.key,instance:" + withheld, "asset.allow=127.0.0.0/8"})...)
}

// withheldBatch stores blobs by the instance that is not shared.
func (s *started) withheldBatch(t testing.TB, blobs ...[]byte) {
	t.Helper()
	q := &repb.BatchUpdateBlobsRequest{InstanceName: withheld}
	for _, b := range blobs {
		q.Requests = append(q.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: digest.SHA256.Of(b).Proto(), Data: b})
	}
	r, err := repb.NewContentAddressableStorageClient(s.conn).BatchUpdateBlobs(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range r.Responses {
		if one.Status.GetCode() != 0 {
			t.Fatal(one)
		}
	}
}

// withheldStream stores a blob as a stream, by the same instance.
func (s *started) withheldStream(t testing.TB, data []byte) {
	t.Helper()
	w, err := bspb.NewByteStreamClient(s.conn).Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := digest.SHA256.Of(data)
	name := fmt.Sprintf("%s/uploads/6f9b1a52-2f61-4a2c-9a49-6d6d6a0d1d11/blobs/%s/%d", withheld, d.Hex(), d.Size())
	if err := w.Send(&bspb.WriteRequest{ResourceName: name, Data: data, FinishWrite: true}); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if r, err := w.CloseAndRecv(); err != nil || r.CommittedSize != d.Size() {
		t.Fatal(r, err)
	}
}

// withheldRun stores an action like action does, by the instance that is not shared, runs it there and gives its result.
func (s *started) withheldRun(t testing.TB, script string, doNotCache bool) *repb.ActionResult {
	t.Helper()
	blobs := encoded(t, shell(script), &repb.Directory{})
	blobs = append(blobs, encoded(t, &repb.Action{CommandDigest: digest.SHA256.Of(blobs[0]).Proto(), InputRootDigest: digest.SHA256.Empty().Proto(), DoNotCache: doNotCache})...)
	s.withheldBatch(t, blobs...)
	stream, err := repb.NewExecutionClient(s.conn).Execute(t.Context(), &repb.ExecuteRequest{InstanceName: withheld, ActionDigest: digest.SHA256.Of(blobs[2]).Proto()})
	if err != nil {
		t.Fatal(err)
	}
	r := response(t, stream)
	if r.Status.GetCode() != 0 {
		t.Fatal(r)
	}
	return r.Result
}

func encoded(t testing.TB, all ...proto.Message) (data [][]byte) {
	t.Helper()
	for _, m := range all {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, b)
	}
	return data
}

// asked is all that a member learns by asking another one for a blob, in every way, with the digest left out.
func (s *started) asked(t testing.TB, of *started, d digest.Digest) string {
	t.Helper()
	ctx := t.Context()
	bulk, err := s.mesh.transport.Bulk(ctx, of.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	control, err := s.mesh.transport.Control(ctx, of.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	blobs := repb.NewContentAddressableStorageClient(bulk)
	q := &repb.FindMissingBlobsRequest{BlobDigests: []*repb.Digest{d.Proto()}}
	found, err := blobs.FindMissingBlobs(ctx, q)
	small, smallErr := repb.NewContentAddressableStorageClient(control).FindMissingBlobs(ctx, q)
	batch, batchErr := blobs.BatchReadBlobs(ctx, &repb.BatchReadBlobsRequest{Digests: []*repb.Digest{d.Proto()}})
	stream, streamErr := bspb.NewByteStreamClient(bulk).Read(ctx, &bspb.ReadRequest{ResourceName: "blobs/" + d.String()})
	var read *bspb.ReadResponse
	if streamErr == nil {
		read, streamErr = stream.Recv()
	}
	trees, treeErr := blobs.GetTree(ctx, &repb.GetTreeRequest{RootDigest: d.Proto()})
	var tree *repb.GetTreeResponse
	if treeErr == nil {
		tree, treeErr = trees.Recv()
	}
	said := fmt.Sprintln(found.GetMissingBlobDigests(), err, small.GetMissingBlobDigests(), smallErr, batch, batchErr, len(read.GetData()), streamErr, tree, treeErr)
	return strings.ReplaceAll(strings.ReplaceAll(said, d.Hex(), "DIGEST"), "  ", " ") // the text form of messages has one space or two
}

// absentLike is a digest of nothing that is anywhere, with a size.
func absentLike(d digest.Digest) digest.Digest {
	return digest.New(digest.SHA256, digest.SHA256.Of([]byte("absent")).Hash(), d.Size())
}

// TestPrivateBlobsAreAbsent: what an instance that is not shared brought or made, in whatever way, is to a member as if it were
// not there, also after the node was started again; what a shared instance brings too is there.
func TestPrivateBlobsAreAbsent(t *testing.T) {
	noLeaks(t)
	dir := t.TempDir()
	ana, ben := keeper(t, dir), executing(t, t.TempDir(), "node.name=ben")
	ben.joins(t, ana)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "downloaded") }))
	defer server.Close()

	large := bytes.Repeat([]byte("large "), 100_000)
	ana.withheldBatch(t, []byte("small"), []byte("also shared"), []byte("of a result"))
	ana.withheldStream(t, large)
	also := ana.put(t, "also shared")
	if r := ana.withheldRun(t, "echo failed | tee out; exit 3", false); r.ExitCode != 3 || len(r.OutputFiles) != 1 {
		t.Fatal(r)
	}
	ana.withheldRun(t, "echo not cached | tee out", true)
	ana.withheldRun(t, "echo cached | tee out", false)
	fetched, err := rapb.NewFetchClient(ana.conn).FetchBlob(t.Context(), &rapb.FetchBlobRequest{InstanceName: withheld, Uris: []string{server.URL}})
	if err != nil || fetched.Status.GetCode() != 0 {
		t.Fatal(fetched, err)
	}
	own := ana.action(t, "true a client made it itself")
	if _, err := repb.NewActionCacheClient(ana.conn).UpdateActionResult(t.Context(), &repb.UpdateActionResultRequest{
		InstanceName: withheld, ActionDigest: own.Proto(),
		ActionResult: &repb.ActionResult{OutputFiles: []*repb.OutputFile{{Path: "out", Digest: digest.SHA256.Of([]byte("of a result")).Proto()}}},
	}); err != nil {
		t.Fatal(err)
	}
	private := map[string]digest.Digest{"a stream": digest.SHA256.Of(large)}
	for what, text := range map[string]string{
		"a batch": "small", "outputs of a failed action": "failed\n", "outputs of one that is not cached": "not cached\n", "outputs": "cached\n",
		"a download": "downloaded", "a blob of a client's own result": "of a result",
	} {
		private[what] = digest.SHA256.Of([]byte(text))
	}
	check := func(when string) {
		t.Helper()
		eventually(t, when+", what a shared instance brought too is told of", func() bool { // the first calls may go where ana was before
			return strings.HasPrefix(ben.asked(t, ana, also), "[] <nil> [] <nil>")
		})
		for what, d := range private {
			if !ana.Node.store.Contains(d) {
				t.Errorf("%s, %s: not at its own node", when, what)
			}
			if got, want := ben.asked(t, ana, d), ben.asked(t, ana, absentLike(d)); got != want {
				t.Errorf("%s, %s: a member is told\n%s and of what is absent\n%s", when, what, got, want)
			}
		}
	}
	check("at first")
	ana.stop()
	ana = keeper(t, dir)
	ben.sees(t, ana)
	ana.sees(t, ben)
	check("started again")
	download := private["a download"]
	if ana.missing(t, download) { // a client of a shared instance asks
		t.Error("the download is gone")
	}
	eventually(t, "ben is given what a shared instance named", func() bool {
		missing, err := ben.Node.content.company.Load().fetcher.Fetch(t.Context(), []digest.Digest{download}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(missing) == 0
	})
	ana.stop()
	ben.stop()
}

// guess takes a lease at a node for an action with one input, whose digest is all the caller knows of it, and gives the answer.
func (s *started) guess(t testing.TB, at *started, d digest.Digest) *leasev1.Result {
	t.Helper()
	blobs := encoded(t, shell("cat in > out"), &repb.Directory{Files: []*repb.FileNode{{Name: "in", Digest: d.Proto()}}})
	blobs = append(blobs, encoded(t, &repb.Action{CommandDigest: digest.SHA256.Of(blobs[0]).Proto(), InputRootDigest: digest.SHA256.Of(blobs[1]).Proto()})...)
	start := &leasev1.Start{Action: lease.DigestProto(digest.SHA256.Of(blobs[2]))}
	for _, b := range blobs {
		start.Blobs = append(start.Blobs, &leasev1.Blob{Digest: lease.DigestProto(digest.SHA256.Of(b)), Content: b})
	}
	client, granted := s.reserve(t, at, digest.SHA256.Of(blobs[2]))
	start.Claim = &leasev1.Claim{Lease: granted.Lease, Attempt: 1, Epoch: 1}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run, err := client.Run(ctx)
	if err == nil {
		err = run.Send(&leasev1.RunRequest{Message: &leasev1.RunRequest_Start{Start: start}})
	}
	for err == nil {
		var answer *leasev1.RunResponse
		if answer, err = run.Recv(); err == nil && answer.GetResult() != nil {
			return answer.GetResult()
		}
	}
	t.Fatal(err)
	return nil
}

// reserve takes a lease at a node for an action.
func (s *started) reserve(t testing.TB, at *started, action digest.Digest) (leasev1.LeaseClient, *leasev1.Granted) {
	t.Helper()
	conn, err := s.mesh.transport.Control(t.Context(), at.identity.ID())
	if err != nil {
		t.Fatal(err)
	}
	client := leasev1.NewLeaseClient(conn)
	answer, err := client.Reserve(t.Context(), &leasev1.ReserveRequest{Action: lease.DigestProto(action), Cores: 0.1, Attempt: 1, Epoch: 1})
	if err != nil || answer.GetGranted() == nil {
		t.Fatalf("no lease: %v, %v", answer, err)
	}
	return client, answer.GetGranted()
}

// TestGuessedLease: a member that has an action run with an input it only guesses is told that it is missing, as if it were
// nowhere; one that guesses which private action runs has no part in it.
func TestGuessedLease(t *testing.T) {
	ana, ben := keeper(t, t.TempDir()), executing(t, t.TempDir(), "node.name=ben")
	defer ben.stop()
	defer ana.stop()
	ben.joins(t, ana)
	small, large := []byte("a PIN: 1234"), bytes.Repeat([]byte("PIN"), 100_000)
	ana.withheldBatch(t, small)
	ana.withheldStream(t, large)
	for _, data := range [][]byte{small, large} {
		d := digest.SHA256.Of(data)
		got, other := ben.guess(t, ana, d), absentLike(d)
		if got.Failure != leasev1.Failure_FAILURE_MISSING || without(t, got, d) != without(t, ben.guess(t, ana, other), other) {
			t.Errorf("with %d bytes a member is told something else than with what is absent: %v", len(data), got)
		}
	}
	shared := ana.put(t, "everybody may read this")
	if got := ben.guess(t, ana, shared); got.Failure != leasev1.Failure_FAILURE_UNSPECIFIED {
		t.Errorf("with what is shared: %v", got)
	}

	blobs := encoded(t, &repb.Command{Arguments: []string{"/bin/sleep", "1000"}})
	blobs = append(blobs, encoded(t, &repb.Action{CommandDigest: digest.SHA256.Of(blobs[0]).Proto(), InputRootDigest: digest.SHA256.Empty().Proto()})...)
	ana.withheldBatch(t, blobs...)
	running := digest.SHA256.Of(blobs[1])
	if _, err := repb.NewExecutionClient(ana.conn).Execute(t.Context(), &repb.ExecuteRequest{InstanceName: withheld, ActionDigest: running.Proto()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the private action runs", func() bool { return ana.machine.room().Running == 1 })
	if _, granted := ben.reserve(t, ana, running); granted.Joined {
		t.Error("a member takes part in a private action")
	}
	for _, f := range ana.machine.flights.List() {
		f.Cancel()
	}
}

// without is an answer with a digest left out.
func without(t testing.TB, r *leasev1.Result, d digest.Digest) string {
	t.Helper()
	hash, text := d.Hash(), string(encoded(t, r)[0])
	for _, form := range []string{string(hash[:]), d.Hex(), d.Hex()[:8]} {
		text = strings.ReplaceAll(text, form, "DIGEST")
	}
	return text
}

// TestIndexIsKeyed: what a mesh's index knows content by depends on the mesh's secret, the same for its members and another for
// everybody else.
func TestIndexIsKeyed(t *testing.T) {
	ana, ben, eve := start(t, configured(t, t.TempDir())), start(t, configured(t, t.TempDir())), start(t, configured(t, t.TempDir()))
	d := digest.SHA256.Of([]byte("known to everybody"))
	keys := func(s *started) [2]cid.Key {
		k := s.Node.content.company.Load().keyer
		return [2]cid.Key{k.Blob(d), k.Result(d, actioncache.Hermetic)}
	}
	before := keys(ben)
	ben.joins(t, ana)
	eventually(t, "ben has the keys of the mesh he is in", func() bool { return keys(ben) == keys(ana) })
	for i, mine := range keys(ana) {
		for name, others := range map[string][2]cid.Key{"a mesh left": before, "another mesh": keys(eve)} {
			if mine == others[i] {
				t.Errorf("key %d is the same in %s", i, name)
			}
		}
	}
	ana.stop()
	ben.stop()
	eve.stop()
}

// TestNothingIsListed: all that a member may call. None of it lists blobs or results, and what names them asks for those it names: a
// call that comes in addition needs a look at what it tells.
func TestNothingIsListed(t *testing.T) {
	n := executing(t, t.TempDir())
	defer n.stop()
	for server, want := range map[grpc.ServiceRegistrar]string{
		n.mesh.transport.BulkServer(): "ByteStream.Read ContentAddressableStorage.BatchReadBlobs ContentAddressableStorage.BatchUpdateBlobs " +
			"ContentAddressableStorage.FindMissingBlobs ContentAddressableStorage.GetChunkMapping ContentAddressableStorage.GetTree " +
			"ContentAddressableStorage.RegisterChunkMapping ContentAddressableStorage.SpliceBlob ContentAddressableStorage.SplitBlob",
		n.mesh.transport.ControlServer(): "Content.Announce Content.Find Content.Forget Content.Keep Content.Reconcile Content.Results Content.Summary " +
			"ContentAddressableStorage.FindMissingBlobs FactsService.Exchange FactsService.Ping Lease.Cancel Lease.Occupancy Lease.Reserve Lease.Run " +
			"Lease.Wait Membership.Renew Membership.Sync Merge.Await Merge.Tell Reach.DialBack",
	} {
		var all []string
		for service, info := range server.(reflection.GRPCServer).GetServiceInfo() {
			for _, m := range info.Methods {
				all = append(all, service[strings.LastIndex(service, ".")+1:]+"."+m.Name)
			}
		}
		slices.Sort(all)
		if got := strings.Join(all, " "); got != want {
			t.Errorf("a member may call\n%s, want\n%s", got, want)
		}
	}
}
