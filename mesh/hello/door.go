package hello

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// ErrRefused means that the other side does not take this node for a member, and says no more.
var ErrRefused = errors.New("refused by the peer")

// Contact is a member and where it was last reached.
type Contact struct {
	Peer      peer.ID
	Addresses []netip.AddrPort
}

// Door lets members in, and strangers with an invite as far as they need. It is a transport.Gate.
type Door struct {
	seat     *member.Seat
	contacts func() []Contact
	joined   func(*trust.Certificate, []netip.AddrPort)
}

// NewDoor makes the door of a node. contacts are told to who is admitted; joined is called with its
// certificate and where it says it listens. Both may be nil.
func NewDoor(seat *member.Seat, contacts func() []Contact, joined func(*trust.Certificate, []netip.AddrPort)) *Door {
	if contacts == nil {
		contacts = func() []Contact { return nil }
	}
	if joined == nil {
		joined = func(*trust.Certificate, []netip.AddrPort) {}
	}
	return &Door{seat, contacts, joined}
}

// Admits implements transport.Gate.
func (d *Door) Admits(id peer.ID) error { return d.seat.Admits(id) }

// Greet implements transport.Gate.
func (d *Door) Greet(conn net.Conn, id peer.ID, dialed bool) error {
	greet := d.answer
	if dialed {
		greet = d.greet
	}
	if err := greet(conn, id); err != nil {
		return fmt.Errorf("greet %s: %w", id.Short(), err)
	}
	return nil
}

// greet is the dialer's side.
func (d *Door) greet(conn net.Conn, id peer.ID) error {
	charter := d.seat.Charter()
	err := send(conn, &meshv1.Greeting{Certificate: d.seat.Certificate().Marshal(), Epoch: charter.Epoch})
	if err != nil {
		return err
	}
	var answer meshv1.Answer
	if err := receive(conn, &answer, charterFrame); err != nil {
		return err
	}
	updated := answer.Verdict == meshv1.Verdict_VERDICT_UPDATE
	if updated {
		if err := send(conn, &meshv1.Update{Charter: charter.Marshal()}); err != nil {
			return err
		}
		if err := receive(conn, &answer, charterFrame); err != nil {
			return err
		}
	}
	if err := complain(answer.Verdict); err != nil {
		return err
	}
	if len(answer.Charter) > 0 {
		if err := d.adopt(answer.Charter); err != nil {
			return err
		}
	}
	if err := d.learn(answer.Certificate, id); err != nil {
		return err
	}
	if answer.Epoch < charter.Epoch && !updated {
		return send(conn, &meshv1.Update{Charter: charter.Marshal()})
	}
	return nil
}

// answer is the listener's side.
func (d *Door) answer(conn net.Conn, id peer.ID) error {
	var greeting meshv1.Greeting
	if err := receive(conn, &greeting, smallFrame); err != nil {
		return err
	}
	charter := d.seat.Charter()
	newer := greeting.Epoch > charter.Epoch
	err := d.learn(greeting.Certificate, id)
	if newer && errors.Is(err, trust.ErrStranger) {
		// It may have been admitted by a steward this node does not know of yet.
		if err := send(conn, &meshv1.Answer{Verdict: meshv1.Verdict_VERDICT_UPDATE}); err != nil {
			return err
		}
		if err := d.update(conn); err != nil {
			return err
		}
		newer, charter = false, d.seat.Charter()
		err = d.learn(greeting.Certificate, id)
	}
	if err != nil {
		return errors.Join(err, send(conn, &meshv1.Answer{Verdict: verdict(err)}))
	}
	answer := &meshv1.Answer{Verdict: meshv1.Verdict_VERDICT_WELCOME, Certificate: d.seat.Certificate().Marshal(), Epoch: charter.Epoch}
	if greeting.Epoch < charter.Epoch {
		answer.Charter = charter.Marshal()
	}
	if err := send(conn, answer); err != nil || !newer {
		return err
	}
	if err := d.update(conn); err != nil {
		return err
	}
	return d.seat.Admits(id) // the newer charter may turn it out
}

// update reads the dialer's charter.
func (d *Door) update(conn net.Conn) error {
	var update meshv1.Update
	if err := receive(conn, &update, charterFrame); err != nil {
		return err
	}
	return d.adopt(update.Charter)
}

// adopt takes a charter that came without its secret; the Keeper fetches that.
func (d *Door) adopt(data []byte) error {
	charter, err := trust.ParseCharter(data)
	if err != nil {
		return err
	}
	return d.seat.Adopt(charter, nil)
}

// learn verifies the certificate of the peer at the other end.
func (d *Door) learn(data []byte, id peer.ID) error {
	cert, err := trust.ParseCertificate(data)
	if err != nil {
		return err
	}
	if cert.Peer != id {
		return fmt.Errorf("certificate of %s shown by another: %w", cert.Peer.Short(), trust.ErrForged)
	}
	return d.seat.Learn(cert)
}

// verdict is what a peer may know of an error: that something genuine is past its time, and nothing else.
func verdict(err error) meshv1.Verdict {
	switch {
	case errors.Is(err, trust.ErrExpired):
		return meshv1.Verdict_VERDICT_EXPIRED
	case errors.Is(err, trust.ErrRevoked):
		return meshv1.Verdict_VERDICT_REVOKED
	case errors.Is(err, trust.ErrNotYet):
		return meshv1.Verdict_VERDICT_CLOCK
	case errors.Is(err, trust.ErrUsed):
		return meshv1.Verdict_VERDICT_USED
	default:
		return meshv1.Verdict_VERDICT_REFUSED
	}
}

// complain is a verdict as an error of this side.
func complain(v meshv1.Verdict) error {
	switch v {
	case meshv1.Verdict_VERDICT_WELCOME:
		return nil
	case meshv1.Verdict_VERDICT_EXPIRED:
		return fmt.Errorf("the peer says: %w", trust.ErrExpired)
	case meshv1.Verdict_VERDICT_REVOKED:
		return fmt.Errorf("the peer says: %w", trust.ErrRevoked)
	case meshv1.Verdict_VERDICT_CLOCK:
		return fmt.Errorf("the peer says: %w; compare the clocks", trust.ErrNotYet)
	case meshv1.Verdict_VERDICT_USED:
		return fmt.Errorf("the peer says: %w", trust.ErrUsed)
	default:
		return ErrRefused
	}
}
