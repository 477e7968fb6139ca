package wire

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// callerHeader carries the caller's peer id.
const callerHeader = "caller"

// maxMessage is the largest message sent and received, in bytes.
const maxMessage = 8 << 20

// Net is a mesh in memory. Safe for concurrent use.
type Net struct {
	nodes map[peer.ID]*Node
	order []peer.ID

	mu      sync.Mutex // guards the nodes' states, and:
	delay   time.Duration
	crossed int
	reaches func(from, to peer.ID) bool // nil: everybody everybody

	end sync.WaitGroup
}

// Node is one member.
type Node struct {
	ID     peer.ID
	Server *grpc.Server // takes services until Start

	net      *Net
	listener *Pipe
	// Guarded by net.mu:
	frozen chan struct{} // open while the node is frozen, nil otherwise
	cut    bool
	alive  time.Duration
	site   string
	conns  map[peer.ID]*grpc.ClientConn
	calls  int
}

// New makes a mesh of nodes that are alive for an hour. Register services, then call Start.
func New(ids []peer.ID) *Net {
	n := &Net{nodes: map[peer.ID]*Node{}, order: ids}
	for _, id := range ids {
		node := &Node{ID: id, net: n, listener: NewPipe(), alive: time.Hour, conns: map[peer.ID]*grpc.ClientConn{}}
		node.Server = grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
			grpc.UnaryInterceptor(node.unary), grpc.StreamInterceptor(node.stream))
		n.nodes[id] = node
	}
	return n
}

// Node gives a member.
func (n *Net) Node(id peer.ID) *Node { return n.nodes[id] }

// Start serves.
func (n *Net) Start() {
	for _, node := range n.nodes {
		n.end.Go(func() { node.Server.Serve(node.listener) })
	}
}

// Close ends everything.
func (n *Net) Close() {
	for _, node := range n.nodes {
		node.Thaw()
		node.disconnect()
	}
	for _, node := range n.nodes {
		node.Server.Stop()
	}
	n.end.Wait()
}

// disconnect closes the node's connections to others.
func (n *Node) disconnect() {
	n.net.mu.Lock()
	conns := n.conns
	n.conns = map[peer.ID]*grpc.ClientConn{}
	n.net.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// Freeze has the node answer nothing until Thaw.
func (n *Node) Freeze() {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.frozen == nil {
		n.frozen = make(chan struct{})
	}
}

// Thaw ends a Freeze.
func (n *Node) Thaw() {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
}

// Cut ends the node for the others, and the others for it.
func (n *Node) Cut() {
	n.net.mu.Lock()
	n.cut = true
	n.net.mu.Unlock()
	n.disconnect()
	n.Server.Stop()
}

// SetAlive says for how long the others have seen the node alive.
func (n *Node) SetAlive(d time.Duration) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.alive = d
}

// SetSite says where the node stands.
func (n *Node) SetSite(site string) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.site = site
}

// Site is where the node stands.
func (n *Node) Site() string {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.site
}

// SetDelay has every message between two sites take d.
func (n *Net) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// SetReach says who gets a connection to whom; reaches asks the network for nothing.
func (n *Net) SetReach(reaches func(from, to peer.ID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reaches = reaches
}

// Crossed is how many messages have gone from one site to another so far.
func (n *Net) Crossed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crossed
}

// cross counts a message between the node and who calls it and takes as long as it does, if they are at two sites.
func (n *Node) cross(ctx context.Context) error {
	from, _ := Caller(ctx)
	n.net.mu.Lock()
	other, delay := n.net.nodes[from], n.net.delay
	far := other != nil && other.site != n.site
	if far {
		n.net.crossed++
	}
	n.net.mu.Unlock()
	if !far || delay == 0 {
		return nil
	}
	select {
	case <-time.After(delay):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Calls is how many calls the node has been asked so far.
func (n *Node) Calls() int {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return n.calls
}

// Members implements locate.Members.
func (n *Node) Members() []locate.Member {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	var members []locate.Member
	for _, id := range n.net.order {
		if other := n.net.nodes[id]; other != n && !other.cut {
			members = append(members, locate.Member{ID: id, Alive: other.alive, Site: other.site})
		}
	}
	return members
}

// errCut is what dialling a node that was cut off gives.
var errCut = errors.New("no such member")

// Control implements locate.Dialer.
func (n *Node) Control(_ context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	other := n.net.nodes[id]
	if other == nil || other.cut || n.cut || n.net.reaches != nil && !n.net.reaches(n.ID, id) {
		return nil, errCut
	}
	if c := n.conns[id]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return other.listener.Dial(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, q, r any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return call(n.sign(ctx), method, q, r, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(n.sign(ctx), d, cc, method, o...)
		}))
	if err != nil {
		return nil, err
	}
	n.conns[id] = c
	return c, nil
}

// Bulk implements locate.Dialer.
func (n *Node) Bulk(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error) {
	return n.Control(ctx, id)
}

// sign says who calls.
func (n *Node) sign(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, callerHeader, hex.EncodeToString(n.ID[:]))
}

// Caller tells who makes the call being served.
func Caller(ctx context.Context) (peer.ID, bool) {
	values := metadata.ValueFromIncomingContext(ctx, callerHeader)
	if len(values) != 1 {
		return peer.ID{}, false
	}
	raw, err := hex.DecodeString(values[0])
	if err != nil || len(raw) != len(peer.ID{}) {
		return peer.ID{}, false
	}
	return peer.ID(raw), true
}

// wait counts a call and holds it as long as the node is frozen.
func (n *Node) wait(ctx context.Context) error {
	n.net.mu.Lock()
	n.calls++
	n.net.mu.Unlock()
	if err := n.cross(ctx); err != nil {
		return err
	}
	return n.hold(ctx)
}

func (n *Node) unary(ctx context.Context, q any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := n.wait(ctx); err != nil {
		return nil, err
	}
	r, err := handle(ctx, q)
	if late := n.cross(ctx); late != nil {
		return nil, late
	}
	return r, err
}

func (n *Node) stream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := n.wait(s.Context()); err != nil {
		return err
	}
	return handle(srv, freezing{s, n})
}

// freezing holds every message of a stream while its node is frozen.
type freezing struct {
	grpc.ServerStream
	node *Node
}

func (f freezing) SendMsg(m any) error {
	if err := f.node.hold(f.Context()); err != nil {
		return err
	}
	if err := f.node.cross(f.Context()); err != nil {
		return err
	}
	return f.ServerStream.SendMsg(m)
}

// hold waits as long as the node is frozen.
func (n *Node) hold(ctx context.Context) error {
	n.net.mu.Lock()
	frozen := n.frozen
	n.net.mu.Unlock()
	if frozen == nil {
		return nil
	}
	select {
	case <-frozen:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
