package node

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/digest"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Snapshot is the node's status now. It is part of web.Source.
func (n *Node) Snapshot() *controlv1.StatusResponse {
	s := &controlv1.StatusResponse{
		Name: n.config.Node.Name, PeerId: n.identity.ID().String(), Version: n.version, Pid: int64(os.Getpid()),
		Started: timestamppb.New(n.started), Draining: n.draining.Load(),
		GrpcAddress: n.grpcAt, GrpcSocket: n.config.Listen.Socket,
		StateDir: n.config.Dir.State, CacheDir: n.config.Dir.Cache,
		Store: n.storeStatus(), Results: n.results.status(), MemoryBytes: residentMemory(),
		Lending: n.lending.answer(), Sandbox: &controlv1.Sandbox{}, Slots: &controlv1.Slots{}, Actions: &controlv1.Actions{},
	}
	if n.webAt != nil {
		s.WebAddress = n.webAt.Addr().String()
	}
	if n.report != nil {
		s.Sandbox = &controlv1.Sandbox{Tier: n.report.Tier.String(), Init: n.report.Init, Groups: n.report.Groups}
	}
	if n.mesh != nil {
		s.Mesh = n.meshStatus(time.Now())
	}
	if n.machine != nil {
		n.machine.status(s)
	}
	return s
}

// Neighbours are the other members of the mesh. It is part of web.Source.
func (n *Node) Neighbours() []*controlv1.Peer {
	if n.mesh == nil {
		return nil
	}
	return n.peers(time.Now()).Peers
}

// storeStatus is the state of the blob store.
func (n *Node) storeStatus() *controlv1.Store {
	s := n.store.Stat()
	return &controlv1.Store{
		Blobs: s.Blobs, Bytes: s.Bytes, DeadBytes: s.Dead, MaxBytes: s.MaxBytes, MinFreeBytes: s.MinFree,
		DiskFreeBytes: s.Free, Pinned: s.Pinned, Evicted: s.Evicted, Corrupt: s.Corrupt, IndexMemoryBytes: s.Memory,
	}
}

// Unhealthy says why the node should get no new work: it drains, or its store takes or gives no
// blob. A full store is healthy: it goes on reading. It is part of web.Source.
func (n *Node) Unhealthy() error {
	if n.draining.Load() {
		return errors.New("draining")
	}
	data := []byte("a blob by which the store shows that it works\n")
	d := digest.SHA256.Of(data)
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := n.store.Put(ctx, d, data); err != nil {
		if errors.Is(err, cas.ErrFull) {
			return nil
		}
		return err
	}
	_, err := n.store.Get(ctx, d)
	return err
}

// answers is the node as the control API asks it.
type answers struct{ node *Node }

// Status implements control.Node.
func (a answers) Status(context.Context) *controlv1.StatusResponse { return a.node.Snapshot() }

// Doctor implements control.Node.
func (a answers) Doctor(ctx context.Context) []*controlv1.Check { return a.node.doctor(ctx) }

// CacheStat implements control.Node.
func (a answers) CacheStat(context.Context) *controlv1.CacheStatResponse {
	s := &controlv1.CacheStatResponse{
		Store: a.node.storeStatus(), Results: a.node.results.status(), Dir: a.node.config.Dir.Cache,
	}
	if a.node.machine != nil {
		staged := a.node.machine.stage.Stat()
		s.StagedBytes, s.StagedLayers = staged.Bytes, int64(staged.Layers)
	}
	return s
}

// Verify implements control.Node.
func (a answers) Verify(ctx context.Context, rate int64, progress func(blobs, bytes int64)) (*controlv1.CacheVerifyResponse, error) {
	report, err := a.node.store.Verify(ctx, cas.VerifyOptions{BytesPerSecond: rate, Progress: progress})
	if err != nil {
		return nil, err
	}
	answer := &controlv1.CacheVerifyResponse{Blobs: report.Blobs, Bytes: report.Bytes, TotalBlobs: report.Blobs, TotalBytes: report.Bytes}
	for _, d := range report.Corrupt {
		answer.Corrupt = append(answer.Corrupt, d.String())
	}
	return answer, nil
}

// Collect implements control.Node.
func (a answers) Collect(ctx context.Context) (freed int64, err error) {
	return a.node.store.Collect(ctx)
}
