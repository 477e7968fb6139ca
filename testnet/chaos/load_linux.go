package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/testnet/lab"
)

// Load is a client of one node that has many small actions run, all unlike each other.
type Load struct {
	conn *grpc.ClientConn
	cas  repb.ContentAddressableStorageClient
	exec repb.ExecutionClient
}

// NewLoad connects to the node's Remote Execution endpoint. Close it.
func NewLoad(n *lab.Node) (*Load, error) {
	socket := filepath.Join(n.Dir(), "state", "run", "buildmesh.sock")
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &Load{conn, repb.NewContentAddressableStorageClient(conn), repb.NewExecutionClient(conn)}, nil
}

// Close ends the connection.
func (l *Load) Close() { _ = l.conn.Close() }

// Outcome is what became of actions.
type Outcome struct {
	Ran    map[string]int    // how many each node ran, by its name
	Stdout map[string]string // by what the action was called
}

// String is who ran how many.
func (o *Outcome) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(o.Ran)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, o.Ran[name]))
	}
	return strings.Join(parts, ", ")
}

// Run has all actions run at once: each runs script in a shell with its name as $1. Every one must succeed. No result of
// another run counts, because their actions have an environment of their own.
func (l *Load) Run(ctx context.Context, run, script string, names []string) (*Outcome, error) {
	actions, err := l.upload(ctx, run, script, names)
	if err != nil {
		return nil, err
	}
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex // guards wrong and out
		wrong []error
		out   = &Outcome{Ran: map[string]int{}, Stdout: map[string]string{}}
	)
	for i, name := range names {
		wait.Go(func() {
			result, err := l.execute(ctx, actions[i])
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				wrong = append(wrong, fmt.Errorf("action %s: %w", name, err))
				return
			}
			out.Ran[result.GetExecutionMetadata().GetWorker()]++
			out.Stdout[name] = string(result.StdoutRaw)
		})
	}
	wait.Wait()
	if more := len(wrong) - 5; more > 0 {
		wrong = append(wrong[:5], fmt.Errorf("and %d more", more))
	}
	return out, errors.Join(wrong...)
}

// Begin has actions run as Run does, and gives the names of their operations when they are accepted. The actions go on
// until they end, or are cancelled.
func (l *Load) Begin(ctx context.Context, run, script string, names []string) ([]string, error) {
	actions, err := l.upload(ctx, run, script, names)
	if err != nil {
		return nil, err
	}
	var operations []string
	for _, action := range actions {
		stream, err := l.exec.Execute(ctx, &repb.ExecuteRequest{ActionDigest: action, SkipCacheLookup: true})
		if err != nil {
			return nil, err
		}
		operation, err := stream.Recv() // the call goes on until ctx ends: it is a client that waits
		if err != nil {
			return nil, err
		}
		operations = append(operations, operation.Name)
	}
	return operations, nil
}

// Cancel cancels an operation.
func (l *Load) Cancel(ctx context.Context, operation string) error {
	_, err := longrunningpb.NewOperationsClient(l.conn).CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: operation})
	return err
}

// Result asks the node for the result of an action, as a client does before it has it run. None is status code NotFound.
func (l *Load) Result(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	return repb.NewActionCacheClient(l.conn).GetActionResult(ctx, &repb.GetActionResultRequest{ActionDigest: action})
}

// upload stores the actions and gives their digests.
func (l *Load) upload(ctx context.Context, run, script string, names []string) ([]*repb.Digest, error) {
	var blobs [][]byte
	add := func(m proto.Message) *repb.Digest {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			panic(err) // a message of ours
		}
		blobs = append(blobs, data)
		sum := sha256.Sum256(data)
		return &repb.Digest{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data))}
	}
	root := add(&repb.Directory{})
	var actions []*repb.Digest
	for _, name := range names {
		command := add(&repb.Command{Arguments: []string{"/bin/sh", "-c", script, "sh", name},
			EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "RUN", Value: run}}})
		actions = append(actions, add(&repb.Action{CommandDigest: command, InputRootDigest: root}))
	}
	for batch := range slices.Chunk(blobs, 500) {
		request := &repb.BatchUpdateBlobsRequest{}
		for _, data := range batch {
			sum := sha256.Sum256(data)
			request.Requests = append(request.Requests, &repb.BatchUpdateBlobsRequest_Request{Data: data,
				Digest: &repb.Digest{Hash: hex.EncodeToString(sum[:]), SizeBytes: int64(len(data))}})
		}
		answer, err := l.cas.BatchUpdateBlobs(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, r := range answer.Responses {
			if r.Status.GetCode() != 0 {
				return nil, fmt.Errorf("store %s: %s", r.Digest.GetHash(), r.Status.GetMessage())
			}
		}
	}
	return actions, nil
}

// execute waits for the result of an action.
func (l *Load) execute(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	stream, err := l.exec.Execute(ctx, &repb.ExecuteRequest{ActionDigest: action})
	if err != nil {
		return nil, err
	}
	for {
		operation, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the stream ended before the operation was done")
		}
		if err != nil {
			return nil, err
		}
		if !operation.Done {
			continue
		}
		response := &repb.ExecuteResponse{}
		if err := operation.GetResponse().UnmarshalTo(response); err != nil {
			return nil, err
		}
		if response.Status.GetCode() != 0 || response.Result.GetExitCode() != 0 {
			return nil, fmt.Errorf("status %v, exit %d: %s", response.Status, response.Result.GetExitCode(), response.Result.GetStderrRaw())
		}
		return response.Result, nil
	}
}
