package hello

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// joinTimeout bounds a visit at one address.
const joinTimeout = 10 * time.Second

// Visit implements transport.Gate: a stranger may knock with an invite.
func (d *Door) Visit(conn net.Conn, id peer.ID) {
	cert, addresses, err := d.admit(conn, id)
	if cert != nil && err == nil {
		d.joined(cert, addresses)
	}
}

// admit is the steward's side of a joiner's visit.
func (d *Door) admit(conn net.Conn, id peer.ID) (*trust.Certificate, []netip.AddrPort, error) {
	var knock meshv1.Knock
	if err := receive(conn, &knock, smallFrame); err != nil {
		return nil, nil, err
	}
	if len(knock.Invite) != len(peer.ID{}) {
		return nil, nil, errFrame
	}
	application := member.Application{Peer: id, Invite: peer.ID(knock.Invite), Proof: knock.Proof}
	if err := d.seat.CheckApplication(application); err != nil {
		return nil, nil, errors.Join(err, send(conn, &meshv1.Welcome{Verdict: verdict(err)}))
	}
	err := send(conn, &meshv1.Welcome{Verdict: meshv1.Verdict_VERDICT_WELCOME,
		Charter: d.seat.Charter().Marshal(), Certificate: d.seat.Certificate().Marshal()})
	if err != nil {
		return nil, nil, err
	}
	var wish meshv1.Application
	if err := receive(conn, &wish, smallFrame); err != nil {
		return nil, nil, err
	}
	application.Name, application.Site = wish.Name, wish.Site
	admission, err := d.seat.Admit(application)
	if err != nil {
		return nil, nil, errors.Join(err, send(conn, &meshv1.Admission{Verdict: verdict(err)}))
	}
	answer := &meshv1.Admission{Verdict: meshv1.Verdict_VERDICT_WELCOME,
		Certificate: admission.Certificate.Marshal(), Secret: admission.Secret[:]}
	for i, c := range d.contacts() {
		if i == maxContacts {
			break
		}
		answer.Contacts = append(answer.Contacts, &meshv1.Contact{Peer: c.Peer[:], Addresses: addressTexts(c.Addresses)})
	}
	return admission.Certificate, parseAddresses(wish.Addresses), send(conn, answer)
}

// addressTexts are the first addresses as texts.
func addressTexts(addresses []netip.AddrPort) []string {
	var out []string
	for _, a := range addresses[:min(len(addresses), trust.MaxSeeds)] {
		out = append(out, a.String())
	}
	return out
}

// parseAddresses reads the first addresses; what is none is left out.
func parseAddresses(texts []string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts[:min(len(texts), trust.MaxSeeds)] {
		if a, err := netip.ParseAddrPort(text); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// maxContacts is how many members a new one is told of; it finds the others from these.
const maxContacts = 32

// Visitor connects to an address as a stranger, calls check with who answers before anything is sent,
// and gives the connection. transport.Transport is one.
type Visitor interface {
	Visit(ctx context.Context, a netip.AddrPort, check func(peer.ID) error) (net.Conn, peer.ID, error)
}

// Joined is what Join brings home.
type Joined struct {
	member.Admission
	Steward  peer.ID
	Contacts []Contact // members to connect to, the steward first
}

// Applicant is who wants to join.
type Applicant struct {
	ID        peer.ID
	Name      string
	Site      string
	Addresses []netip.AddrPort // where it listens
}

// Join asks the steward that made the code to admit this node, at each of the code's addresses in turn.
// Errors wrap those of mesh/trust when the steward refused the code.
func Join(ctx context.Context, v Visitor, code *trust.Code, who Applicant) (*Joined, error) {
	var errs []error
	for _, a := range code.Seeds {
		j, err := joinAt(ctx, v, a, code, who)
		if err == nil {
			return j, nil
		}
		if final(err) {
			return nil, err
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errors.New("the code names no address")
	}
	return nil, errors.Join(errs...)
}

// final reports whether another address would give the same answer.
func final(err error) bool {
	return errors.Is(err, trust.ErrExpired) || errors.Is(err, trust.ErrUsed) || errors.Is(err, trust.ErrRevoked) || errors.Is(err, ErrRefused)
}

// joinAt is the joiner's side of a visit at one address.
func joinAt(ctx context.Context, v Visitor, a netip.AddrPort, code *trust.Code, who Applicant) (*Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, steward, err := v.Visit(ctx, a, func(id peer.ID) error {
		if trust.HashOf(id) != code.Steward {
			return fmt.Errorf("another node answers than the one that made the code: %w", trust.ErrForged)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	j, err := ask(conn, steward, code, who)
	if err != nil {
		return nil, fmt.Errorf("join at %s: %w", a, err)
	}
	j.Contacts = append([]Contact{{steward, []netip.AddrPort{a}}}, j.Contacts...)
	return j, nil
}

// ask speaks the joiner's part.
func ask(conn net.Conn, steward peer.ID, code *trust.Code, who Applicant) (*Joined, error) {
	invite := code.Invite()
	key := invite.ID()
	if err := send(conn, &meshv1.Knock{Invite: key[:], Proof: trust.JoinProof(invite, who.ID, steward)}); err != nil {
		return nil, err
	}
	var welcome meshv1.Welcome
	if err := receive(conn, &welcome, charterFrame); err != nil {
		return nil, err
	}
	if err := complain(welcome.Verdict); err != nil {
		return nil, err
	}
	charter, err := checkWelcome(&welcome, steward, code)
	if err != nil {
		return nil, err
	}
	err = send(conn, &meshv1.Application{Name: trust.Clean(who.Name, trust.MaxName), Site: trust.Clean(who.Site, trust.MaxSite),
		Addresses: addressTexts(who.Addresses)})
	if err != nil {
		return nil, err
	}
	var admission meshv1.Admission
	if err := receive(conn, &admission, contactFrame); err != nil {
		return nil, err
	}
	if err := complain(admission.Verdict); err != nil {
		return nil, err
	}
	return checkAdmission(&admission, charter, steward, who.ID)
}

// checkWelcome verifies the chain from the mesh the code names to the steward. The steward's clock may
// be far from this node's, so the time of its certificate is not judged.
func checkWelcome(w *meshv1.Welcome, steward peer.ID, code *trust.Code) (*trust.Charter, error) {
	charter, err := trust.ParseCharter(w.Charter)
	if err != nil {
		return nil, err
	}
	cert, err := trust.ParseCertificate(w.Certificate)
	if err != nil {
		return nil, err
	}
	switch {
	case trust.HashOf(charter.Root) != code.Root:
		return nil, fmt.Errorf("the steward shows another mesh than the code names: %w", trust.ErrForged)
	case !charter.IsSteward(steward) || cert.Peer != steward:
		return nil, fmt.Errorf("the node that made the code is no steward of mesh %q: %w", charter.Name, trust.ErrStranger)
	}
	return charter, charter.Check(cert, cert.Issued)
}

// checkAdmission verifies what the steward gave.
func checkAdmission(a *meshv1.Admission, charter *trust.Charter, steward, self peer.ID) (*Joined, error) {
	cert, err := trust.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, err
	}
	if cert.Peer != self || len(a.Secret) != len(trust.Secret{}) || len(a.Contacts) > maxContacts {
		return nil, errFrame
	}
	j := &Joined{Admission: member.Admission{Charter: charter, Certificate: cert, Secret: trust.Secret(a.Secret)}, Steward: steward}
	for _, c := range a.Contacts {
		if len(c.Peer) != len(peer.ID{}) {
			return nil, errFrame
		}
		j.Contacts = append(j.Contacts, Contact{peer.ID(c.Peer), parseAddresses(c.Addresses)})
	}
	return j, nil
}
