package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// victim accepts connections until the test ends and does something with each; it returns its address.
func victim(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	t.Cleanup(func() { _ = listener.Close(); wait.Wait() })
	wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { defer func() { _ = conn.Close() }(); serve(conn) })
		}
	})
	return listener.Addr().String()
}

// door does the other half of a TLS handshake with peer ids and serves with what comes after.
func door(t *testing.T, serve func(net.Conn)) func(net.Conn) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := libp2ptls.NewIdentity(key)
	if err != nil {
		t.Fatal(err)
	}
	return func(raw net.Conn) {
		config, _ := identity.ConfigForPeer("")
		config.NextProtos = []string{helloProtocol, memberProtocol}
		conn := tls.Server(raw, config)
		if conn.HandshakeContext(t.Context()) == nil {
			serve(conn)
		}
	}
}

// deaf reads a little and hangs up; refusing says no; talkative serves anybody.
func deaf(conn net.Conn) { _, _ = bufio.NewReader(conn).ReadByte() }
func refusing(conn net.Conn) {
	_, _ = conn.Write([]byte{0})
	_, _ = bufio.NewReader(conn).ReadByte()
}
func talkative(conn net.Conn) {
	_, _ = conn.Write(make([]byte, 8<<10))
	_, _ = io.Copy(io.Discard, conn)
}

// Every attack is told apart from one that succeeds.
func TestAttacks(t *testing.T) {
	for _, test := range []struct {
		attack string
		serve  func(net.Conn)
		want   string
	}{
		{"connections", func(net.Conn) {}, "connections: 40 sent, 0 let in, heard nothing"},
		{"connections", talkative, "connections: 40 sent, 40 let in, heard \"" + strings.Repeat(`\x00`, 40) + "\""},
		{"noise", deaf, "noise: 40 sent, 0 let in, heard nothing"},
		{"streams", deaf, "streams: 40 sent, 0 let in, heard nothing"},
		{"hellos", door(t, deaf), "hellos: 40 sent, 0 let in, heard nothing"},
		{"hellos", door(t, talkative), "hellos: 40 sent, 40 let in, heard \"" + strings.Repeat(`\x00`, 40) + "\""},
		{"greetings", door(t, deaf), "greetings: 40 sent, 0 let in, heard nothing"},
		{"greetings", door(t, talkative), "greetings: 40 sent, 40 let in, heard \"" + strings.Repeat(`\x00`, 40) + "\""},
		{"knocks", door(t, deaf), "knocks: 40 sent, 0 let in, heard nothing"},
		{"claims", door(t, refusing), `claims: 40 sent, 0 let in, heard "\x00"`},
		{"charters", door(t, deaf), "charters: 40 sent, 0 let in, heard nothing"},
		{"packets", deaf, "packets: 40 sent, 0 let in, heard nothing"},
	} {
		got, err := run(t.Context(), []string{test.attack, victim(t, test.serve), "40"})
		if err != nil || got != test.want {
			t.Errorf("got %q, %v; want %q", got, err, test.want)
		}
	}
}

// spoken is a connection that says something and ends.
type spoken struct {
	net.Conn
	io.Reader
}

func (s spoken) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// What is heard before a reset depends on who was quicker, so it is no part of the outcome.
func TestHeardBeforeReset(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for end, want := range map[error]string{io.EOF: `"hello"`, reset: "nothing"} {
		s := &stranger{heard: map[string]bool{}}
		said := io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(end))
		if err := s.served(spoken{Reader: said}); err == nil {
			t.Errorf("%v: a few bytes passed for being served", end)
		}
		if got := s.answers(); got != want {
			t.Errorf("%v: heard %s, want %s", end, got, want)
		}
	}
}

func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "want ATTACK",
		"noise nowhere 3":                   "ip:port",
		"obituaries 127.0.0.1:1 1 /nowhere": "/nowhere",
		"noise 127.0.0.1:1 0":               "count",
		"kindness 127.0.0.1:1 10":           "there is no attack",
	} {
		if _, err := run(t.Context(), strings.Fields(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}
