package discover

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
)

// ErrUnheard means that what a machine sent to the group did not come back to it.
var ErrUnheard = errors.New("what this machine sends to the group does not come back to it")

const (
	// echoTries is how often Echo sends, as multicast may be lost.
	echoTries = 3
	// echoWait is how long it listens after each.
	echoWait = 500 * time.Millisecond
)

// Echo sends to the group, the zero value: Group, and waits to hear itself, as a Discover does by its own beacons. It is
// for a machine on which no node runs: nodes drop what it sends unread, for it is no beacon. Errors: ErrUnheard; why
// nothing can be sent or heard; the context's.
func Echo(ctx context.Context, group netip.AddrPort, networks []netip.Prefix) error {
	if !group.IsValid() {
		group = Group
	}
	hear, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(group))
	if err != nil {
		return fmt.Errorf("listen for beacons on %s: %w", group, err)
	}
	defer hear.Close()
	defer context.AfterFunc(ctx, func() { hear.Close() })()
	speak, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return fmt.Errorf("send beacons: %w", err)
	}
	defer speak.Close()
	d := &Discover{o: Options{Group: group, Allowed: networks}, speak: speak}
	said := []byte("echo of buildmesh doctor " + rand.Text())
	for range echoTries {
		if err := d.send(ipv4.NewPacketConn(hear), ipv4.NewPacketConn(speak), said); err != nil {
			return err
		}
		err := comesBack(hear, said)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, ErrUnheard) {
			return err
		}
	}
	return ErrUnheard
}

// comesBack reads until what was said is heard.
func comesBack(conn *net.UDPConn, said []byte) error {
	if err := conn.SetReadDeadline(time.Now().Add(echoWait)); err != nil {
		return err
	}
	data := make([]byte, maxBeacon+1)
	for limit := time.Now().Add(echoWait); time.Now().Before(limit); { // others may go on without end
		n, _, err := conn.ReadFromUDPAddrPort(data)
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			break
		}
		if err != nil {
			return err
		}
		if bytes.Equal(data[:n], said) {
			return nil
		}
	}
	return ErrUnheard
}
