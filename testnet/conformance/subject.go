package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	assetpb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	"github.com/google/uuid"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// messageLimit is what gRPC clients accept in one message when nobody tells them otherwise, in bytes.
const messageLimit = 4 << 20

// Options say which server to examine and how.
type Options struct {
	Endpoint  string            // "grpc://host:port", "host:port" or "unix:///path"; plain text
	Instance  string            // instance name of every request
	Platform  map[string]string // platform properties an executor of the server satisfies
	KeepAlive time.Duration     // longest silence of a stream of operations; 0 leaves the check out
	Patience  time.Duration     // deadline of a check, and the measure of all waiting in it; 0 is a minute
	Require   []Feature         // absent features that are failures and not skips
}

// Subject is the server under examination: its clients, its capabilities, and a source of content
// nobody uploaded before. It is safe for concurrent use by several checks.
type Subject struct {
	Instance     string
	Capabilities *repb.ServerCapabilities
	Function     Function // the digest function of the checks that do not try several

	CAS        repb.ContentAddressableStorageClient
	Cache      repb.ActionCacheClient
	Execution  repb.ExecutionClient
	Info       repb.CapabilitiesClient
	Bytes      bspb.ByteStreamClient
	Operations longrunningpb.OperationsClient
	Fetch      assetpb.FetchClient
	Push       assetpb.PushClient
	Logs       logpb.LogStreamServiceClient

	platform  []*repb.Platform_Property
	keepAlive time.Duration
	patience  time.Duration
	conn      *grpc.ClientConn
	absent    map[Feature]string // why a feature is not offered
	required  map[Feature]bool
}

// Connect dials the server, asks for its capabilities and probes its optional services.
// The caller closes the Subject.
func Connect(ctx context.Context, o Options) (*Subject, error) {
	target := strings.TrimPrefix(o.Endpoint, "grpc://")
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageLimit), grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", o.Endpoint, err)
	}
	s := &Subject{
		Instance: o.Instance, conn: conn, keepAlive: o.KeepAlive, patience: o.Patience, absent: map[Feature]string{}, required: map[Feature]bool{},
		CAS:        repb.NewContentAddressableStorageClient(conn),
		Cache:      repb.NewActionCacheClient(conn),
		Execution:  repb.NewExecutionClient(conn),
		Info:       repb.NewCapabilitiesClient(conn),
		Bytes:      bspb.NewByteStreamClient(conn),
		Operations: longrunningpb.NewOperationsClient(conn),
		Fetch:      assetpb.NewFetchClient(conn),
		Push:       assetpb.NewPushClient(conn),
		Logs:       logpb.NewLogStreamServiceClient(conn),
	}
	if s.patience == 0 {
		s.patience = defaultPatience
	}
	for name, value := range o.Platform {
		s.platform = append(s.platform, &repb.Platform_Property{Name: name, Value: value})
	}
	slices.SortFunc(s.platform, func(a, b *repb.Platform_Property) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range o.Require {
		s.required[f] = true
	}
	if s.Capabilities, err = s.Info.GetCapabilities(ctx, &repb.GetCapabilitiesRequest{InstanceName: o.Instance}); err != nil {
		_ = conn.Close() // the error that matters is the call's
		return nil, fmt.Errorf("get capabilities of %s: %w", o.Endpoint, err)
	}
	s.Function = SHA256
	if fs := s.Functions(); len(fs) > 0 && !slices.ContainsFunc(fs, func(f Function) bool { return f == SHA256 }) {
		s.Function = fs[0]
	}
	s.advertised()
	if s.keepAlive == 0 {
		s.absent[KeepAlive] = "no interval was given for it"
	}
	s.probe(ctx)
	return s, nil
}

// Close ends the connection.
func (s *Subject) Close() error { return s.conn.Close() }

// With is s using another digest function.
func (s *Subject) With(f Function) *Subject {
	c := *s
	c.Function = f
	return &c
}

// In is s using another instance name.
func (s *Subject) In(instance string) *Subject {
	c := *s
	c.Instance = instance
	return &c
}

// Functions lists the advertised digest functions that this suite can compute.
func (s *Subject) Functions() []Function {
	var fs []Function
	for _, v := range s.Capabilities.GetCacheCapabilities().GetDigestFunctions() {
		if f, known := functionOf(v); known {
			fs = append(fs, f)
		}
	}
	return fs
}

// answerDeadline bounds the wait for an answer that has to come without a further message of ours.
func (s *Subject) answerDeadline() time.Duration { return s.patience / 4 }

// nap is a command that sleeps longer than any check should take that interrupts it.
func (s *Subject) nap() string { return fmt.Sprintf("sleep %d", int(s.patience.Seconds()/2)) }

// Blob makes n bytes that no server has seen and no compressor shrinks.
func (s *Subject) Blob(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its documentation
	return b
}

// Text makes n bytes that no server has seen and every compressor shrinks.
func (s *Subject) Text(n int) []byte {
	line := uuid.NewString() + "\n"
	return []byte(strings.Repeat(line, n/len(line)+1)[:n])
}

// Digest of data in the subject's digest function.
func (s *Subject) Digest(data []byte) *repb.Digest { return s.Function.Of(data) }

// Empty is the digest of no bytes.
func (s *Subject) Empty() *repb.Digest { return s.Function.Of(nil) }

// Unseen is the digest of content that was never uploaded.
func (s *Subject) Unseen() *repb.Digest { return s.Digest(s.Blob(64)) }

func (s *Subject) unknownOperation() string { return "operations/" + uuid.NewString() }
