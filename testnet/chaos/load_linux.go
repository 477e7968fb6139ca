package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/testnet/lab"
	"github.com/buildmesh/buildmesh/testnet/sample"
)

// Load is a client of one node that has many small actions run, all unlike each other.
type Load struct {
	client *sample.Client
	exec   repb.ExecutionClient
}

// NewLoad connects to the node's Remote Execution endpoint. Close it.
func NewLoad(n *lab.Node) (*Load, error) {
	client, err := sample.Dial(n.Endpoint())
	if err != nil {
		return nil, err
	}
	return &Load{client, repb.NewExecutionClient(client.Conn())}, nil
}

// Close ends the connection.
func (l *Load) Close() { l.client.Close() }

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
	_, err := longrunningpb.NewOperationsClient(l.client.Conn()).CancelOperation(ctx, &longrunningpb.CancelOperationRequest{Name: operation})
	return err
}

// Result asks the node for the result of an action, as a client does before it has it run. None is status code NotFound.
func (l *Load) Result(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	return l.client.Result(ctx, action)
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
		return digest.SHA256.Of(data).Proto()
	}
	root := add(&repb.Directory{})
	var actions []*repb.Digest
	for _, name := range names {
		command := add(&repb.Command{Arguments: []string{"/bin/sh", "-c", script, "sh", name},
			EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "RUN", Value: run}}})
		actions = append(actions, add(&repb.Action{CommandDigest: command, InputRootDigest: root}))
	}
	return actions, l.client.Store(ctx, blobs)
}

// execute waits for the result of an action, which must succeed.
func (l *Load) execute(ctx context.Context, action *repb.Digest) (*repb.ActionResult, error) {
	response, err := l.client.Execute(ctx, action)
	if err == nil && response.Result.GetExitCode() != 0 {
		err = fmt.Errorf("exit code %d", response.Result.ExitCode)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, response.GetResult().GetStderrRaw())
	}
	return response.Result, nil
}
