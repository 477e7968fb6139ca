package sample

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Client builds samples at one endpoint, and has other actions run there.
type Client struct {
	conn  *grpc.ClientConn
	blobs repb.ContentAddressableStorageClient
	exec  repb.ExecutionClient
	cache repb.ActionCacheClient
	bytes bspb.ByteStreamClient
}

// Dial connects to an endpoint when it is first used. Close the client.
func Dial(target string) (*Client, error) {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return On(conn), nil
}

// On is the client of a connection.
func On(conn *grpc.ClientConn) *Client {
	return &Client{
		conn, repb.NewContentAddressableStorageClient(conn), repb.NewExecutionClient(conn), repb.NewActionCacheClient(conn),
		bspb.NewByteStreamClient(conn),
	}
}

// Conn is the connection, for what else is to be called.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() }

// Built is what became of a sample.
type Built struct {
	Worker string // the node that ran it
	Known  bool   // its result was known, nothing ran
	Right  bool   // the output is what it has to be
}

// Build has a sample run, unless its result is known, and reads its output. An error is what the endpoint says when there is
// no result.
func (c *Client) Build(ctx context.Context, s Sample) (*Built, error) {
	if err := c.store(ctx, s); err != nil {
		return nil, err
	}
	response, err := c.Execute(ctx, s.Digest().Proto())
	if err != nil {
		return nil, err
	}
	return c.look(ctx, s, response.Result, response.CachedResult)
}

// Begin has a sample run and returns when it does, with the name of the node it runs on. It goes on while ctx lives, and
// longer only if somebody else asked for it too.
func (c *Client) Begin(ctx context.Context, s Sample) (worker string, err error) {
	if err := c.store(ctx, s); err != nil {
		return "", err
	}
	_, err = c.follow(ctx, s.Digest().Proto(), func(operation *longrunningpb.Operation) bool {
		told := &repb.ExecuteOperationMetadata{}
		if operation.GetMetadata().UnmarshalTo(told) == nil && told.Stage == repb.ExecutionStage_EXECUTING {
			worker = told.PartialExecutionMetadata.GetWorker()
		}
		return worker != "" || operation.Done
	})
	if err == nil && worker == "" {
		err = errors.New("it was done before it was said to run")
	}
	return worker, err
}

// Find gives a result that is known and reads the output; nothing is run. Errors: NotFound as a gRPC status.
func (c *Client) Find(ctx context.Context, s Sample) (*Built, error) {
	result, err := c.Result(ctx, s.Digest().Proto())
	if err != nil {
		return nil, err
	}
	return c.look(ctx, s, result, true)
}

// Result asks for the result of any action, as a client does before it has it run. Errors: NotFound as a gRPC status.
func (c *Client) Result(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	return c.cache.GetActionResult(ctx, &repb.GetActionResultRequest{ActionDigest: action})
}

// Execute has any action run that is stored, unless its result is known. An error is what the endpoint says when there is no
// result.
func (c *Client) Execute(ctx context.Context, action *repb.Digest) (*repb.ExecuteResponse, error) {
	operation, err := c.follow(ctx, action, (*longrunningpb.Operation).GetDone)
	if err != nil {
		return nil, err
	}
	response := &repb.ExecuteResponse{}
	if err := operation.GetResponse().UnmarshalTo(response); err != nil {
		return nil, err
	}
	return response, status.ErrorProto(response.Status)
}

// follow asks for the result of an action and gives the operation as it is when it is so far.
func (c *Client) follow(ctx context.Context, action *repb.Digest, soFar func(*longrunningpb.Operation) bool) (*longrunningpb.Operation, error) {
	stream, err := c.exec.Execute(ctx, &repb.ExecuteRequest{ActionDigest: action})
	if err != nil {
		return nil, err
	}
	for {
		operation, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the stream ended before the operation was done")
		}
		if err != nil || soFar(operation) {
			return operation, err
		}
	}
}

// store stores what a sample is made of.
func (c *Client) store(ctx context.Context, s Sample) error {
	action, rest := s.encode()
	return c.Store(ctx, append(rest, action))
}

// together is how many blobs are stored by one call.
const together = 500

// Store stores any small blobs: some hundreds of them have to fit into a message.
func (c *Client) Store(ctx context.Context, blobs [][]byte) error {
	for some := range slices.Chunk(blobs, together) {
		q := &repb.BatchUpdateBlobsRequest{}
		for _, data := range some {
			q.Requests = append(q.Requests, &repb.BatchUpdateBlobsRequest_Request{Digest: digest.SHA256.Of(data).Proto(), Data: data})
		}
		stored, err := c.blobs.BatchUpdateBlobs(ctx, q)
		if err != nil {
			return err
		}
		for _, r := range stored.Responses {
			if err := status.ErrorProto(r.Status); err != nil {
				return fmt.Errorf("store %s: %w", r.Digest.GetHash(), err)
			}
		}
	}
	return nil
}

// look compares the output of a result with what it has to be.
func (c *Client) look(ctx context.Context, s Sample, result *repb.ActionResult, known bool) (*Built, error) {
	if result.GetExitCode() != 0 || len(result.GetOutputFiles()) != 1 {
		return nil, fmt.Errorf("exit code %d, %d outputs: %s", result.GetExitCode(), len(result.GetOutputFiles()), result.GetStderrRaw())
	}
	content, err := c.read(ctx, result.OutputFiles[0].Digest)
	if err != nil {
		return nil, fmt.Errorf("read the output: %w", err)
	}
	return &Built{
		Worker: result.GetExecutionMetadata().GetWorker(), Known: known, Right: bytes.Equal(content, s.Content()),
	}, nil
}

// read gives a blob.
func (c *Client) read(ctx context.Context, d *repb.Digest) ([]byte, error) {
	stream, err := c.bytes.Read(ctx, &bspb.ReadRequest{ResourceName: fmt.Sprintf("blobs/%s/%d", d.GetHash(), d.GetSizeBytes())})
	var content []byte
	for err == nil {
		var part *bspb.ReadResponse
		if part, err = stream.Recv(); err == nil {
			content = append(content, part.Data...)
		}
	}
	if errors.Is(err, io.EOF) {
		return content, nil
	}
	return nil, err
}
