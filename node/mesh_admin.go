package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// greetTimeout bounds the first call to the mesh just joined.
const greetTimeout = 5 * time.Second

// meshAnswers is the node as the command line asks it about its mesh.
type meshAnswers struct {
	controlv1.UnimplementedMeshServer
	node *Node
}

// mesh is the node's mesh part, or why there is none.
func (a meshAnswers) mesh() (*meshed, error) {
	if a.node.mesh == nil {
		return nil, status.Error(codes.FailedPrecondition, "this node takes part in no mesh: mesh.enabled is false")
	}
	return a.node.mesh, nil
}

// refused is an error of the mesh in words for a person.
func refused(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, member.ErrNotSteward):
		return status.Error(codes.FailedPrecondition, "this node may not invite: it is no steward of the mesh; buildmesh members shows who is, and the founder makes one with: buildmesh appoint PEER")
	case errors.Is(err, trust.ErrUsed):
		return status.Error(codes.FailedPrecondition, "this code was used as often as it may be; ask for a new one: buildmesh invite")
	case errors.Is(err, trust.ErrExpired):
		return status.Error(codes.FailedPrecondition, "this code has expired; ask for a new one: buildmesh invite")
	case errors.Is(err, trust.ErrRevoked):
		return status.Error(codes.FailedPrecondition, "this peer was revoked from the mesh, for good; with a new identity it can be invited again")
	case errors.Is(err, hello.ErrRefused):
		return status.Error(codes.FailedPrecondition, "the node that made this code does not know it (any more); ask for a new one: buildmesh invite")
	default:
		return status.Error(codes.FailedPrecondition, err.Error())
	}
}

// Members implements controlv1.MeshServer.
func (a meshAnswers) Members(context.Context, *controlv1.MembersRequest) (*controlv1.MembersResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	charter := m.seat.Charter()
	answer := &controlv1.MembersResponse{Mesh: charter.Name, Root: charter.Root.String(), Epoch: charter.Epoch, Address: m.transport.Listening().String()}
	for _, c := range m.seat.Members() {
		one := &controlv1.Member{Name: c.Name, PeerId: c.Peer.String(), Site: c.Site, Expires: timestamppb.New(c.Expires), Steward: charter.IsSteward(c.Peer)}
		if c.Peer != m.seat.ID() {
			one.Connected, one.Phrase = m.transport.Connected(c.Peer), trust.Phrase(charter.Root, m.seat.ID(), c.Peer)
		}
		answer.Members = append(answer.Members, one)
	}
	return answer, nil
}

// Invite implements controlv1.MeshServer.
func (a meshAnswers) Invite(_ context.Context, r *controlv1.InviteRequest) (*controlv1.InviteResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	lifetime := r.Lifetime.AsDuration()
	code, err := m.seat.Invite(member.InviteOptions{Uses: int(r.Uses), Lifetime: lifetime, Seeds: m.seeds()})
	if err != nil {
		return nil, refused(err)
	}
	answer := &controlv1.InviteResponse{Code: code.String(), Mesh: m.seat.Charter().Name, Expires: timestamppb.New(time.Now().Add(lifetime))}
	for _, s := range code.Seeds {
		answer.Addresses = append(answer.Addresses, s.String())
	}
	return answer, nil
}

// Join implements controlv1.MeshServer.
func (a meshAnswers) Join(ctx context.Context, r *controlv1.JoinRequest) (*controlv1.JoinResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	code, err := trust.ParseCode(r.Code)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if trust.HashOf(m.seat.Charter().Root) == code.Root {
		return nil, status.Errorf(codes.FailedPrecondition, "this node is in mesh %q already", m.seat.Charter().Name)
	}
	if err := m.seat.Alone(); err != nil {
		return nil, refused(err)
	}
	own := m.seat.Certificate()
	joined, err := hello.Join(ctx, m.transport, code, hello.Applicant{ID: own.Peer, Name: own.Name, Site: own.Site, Addresses: m.seeds()})
	if err != nil {
		return nil, refused(err)
	}
	if err := m.seat.Move(joined.Charter, joined.Certificate, joined.Secret); err != nil {
		return nil, refused(err)
	}
	for _, c := range joined.Contacts {
		m.learn(c.Peer, c.Addresses)
	}
	m.presence.Look()
	answer := &controlv1.JoinResponse{Mesh: joined.Charter.Name, Steward: joined.Steward.Short(),
		Phrase: trust.Phrase(joined.Charter.Root, own.Peer, joined.Steward)}
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	if conn, err := m.transport.Control(ctx, joined.Steward); err == nil && hello.Sync(ctx, conn, m.seat) == nil {
		for _, c := range m.seat.Members() {
			if c.Peer == joined.Steward {
				answer.Steward = c.Name
			}
		}
	}
	return answer, nil
}

// Found implements controlv1.MeshServer.
func (a meshAnswers) Found(_ context.Context, r *controlv1.FoundRequest) (*controlv1.FoundResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	name := r.Name
	if name == "" {
		name = a.node.config.Node.Name
	}
	if r.RootKey != "" && !filepath.IsAbs(r.RootKey) {
		return nil, status.Error(codes.InvalidArgument, "the path of the root key must be absolute")
	}
	charter, err := m.seat.Found(name, r.RootKey)
	if err != nil {
		return nil, refused(err)
	}
	answer := &controlv1.FoundResponse{Mesh: charter.Name, Root: charter.Root.String(), RootKey: r.RootKey}
	if answer.RootKey == "" {
		answer.RootKey = m.seat.RootFile()
	}
	return answer, nil
}

// Revoke implements controlv1.MeshServer.
func (a meshAnswers) Revoke(_ context.Context, r *controlv1.RevokeRequest) (*controlv1.RevokeResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	id, name, err := m.find(r.Peer)
	if err != nil {
		return nil, err
	}
	if id == m.seat.ID() {
		return nil, status.Error(codes.InvalidArgument, "this node cannot revoke itself; it can leave: buildmesh leave")
	}
	since := trust.Always
	if r.Since != nil {
		since = r.Since.AsTime()
	}
	if err := m.seat.Amend(r.RootKey, trust.Amendment{Revoke: []trust.Revocation{{Peer: id, Since: since}}}); err != nil {
		return nil, refused(err)
	}
	return &controlv1.RevokeResponse{Name: name, PeerId: id.String(), Epoch: m.seat.Charter().Epoch}, nil
}

// Appoint implements controlv1.MeshServer.
func (a meshAnswers) Appoint(_ context.Context, r *controlv1.AppointRequest) (*controlv1.AppointResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	id, name, err := m.find(r.Peer)
	if err != nil {
		return nil, err
	}
	if err := m.seat.Amend(r.RootKey, trust.Amendment{Appoint: []peer.ID{id}}); err != nil {
		return nil, refused(err)
	}
	return &controlv1.AppointResponse{Name: name, PeerId: id.String()}, nil
}

// Leave implements controlv1.MeshServer.
func (a meshAnswers) Leave(ctx context.Context, _ *controlv1.LeaveRequest) (*controlv1.LeaveResponse, error) {
	m, err := a.mesh()
	if err != nil {
		return nil, err
	}
	left := m.seat.Charter().Name
	m.presence.Goodbye(ctx)
	if err := m.seat.Leave(); err != nil {
		return nil, refused(err)
	}
	return &controlv1.LeaveResponse{Left: left, Mesh: m.seat.Charter().Name}, nil
}

// find is the one member a person means by a name, a peer id or the end of one. A whole peer id need
// not be known: its owner may have never met this node.
func (m *meshed) find(who string) (peer.ID, string, error) {
	var found []*trust.Certificate
	for _, c := range m.seat.Members() {
		id := c.Peer.String()
		if id == who {
			return c.Peer, c.Name, nil
		}
		if c.Name == who || len(who) >= 4 && strings.HasSuffix(id, who) {
			found = append(found, c)
		}
	}
	if id, err := peer.Parse(who); err == nil {
		return id, "", nil
	}
	switch len(found) {
	case 1:
		return found[0].Peer, found[0].Name, nil
	case 0:
		return peer.ID{}, "", status.Errorf(codes.NotFound, "no member is called %q, and no peer id ends so; see: buildmesh members", who)
	}
	var ids []string
	for _, c := range found {
		ids = append(ids, c.Peer.Short())
	}
	return peer.ID{}, "", status.Error(codes.InvalidArgument, fmt.Sprintf("%d members are called %q; say which by the end of its peer id: %s", len(found), who, strings.Join(ids, ", ")))
}
