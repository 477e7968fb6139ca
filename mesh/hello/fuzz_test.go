package hello_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/mesh/hello"
	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
	meshv1 "github.com/buildmesh/buildmesh/proto/mesh/v1"
)

// spoken is a connection on which everything was said already; what it is answered is counted.
type spoken struct {
	net.Conn // nil: a greeting neither sets deadlines nor closes
	said     *bytes.Reader
	answered int
}

func (s *spoken) Read(p []byte) (int, error)  { return s.said.Read(p) }
func (s *spoken) Write(p []byte) (int, error) { s.answered += len(p); return len(p), nil }

// FuzzDoor says anything to a door, as dialer, as listener and as visitor: nobody comes in, nothing is adopted, and who
// is refused hears at most a verdict.
func FuzzDoor(f *testing.F) {
	identity, err := peer.Generate()
	if err != nil {
		f.Fatal(err)
	}
	seat, err := member.Open(filepath.Join(f.TempDir(), "mesh"), identity, member.Options{Name: "ana"})
	if err != nil {
		f.Fatal(err)
	}
	stranger, err := peer.Generate()
	if err != nil {
		f.Fatal(err)
	}
	frame := func(messages ...proto.Message) (out []byte) {
		for _, m := range messages {
			data, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			out = append(binary.AppendUvarint(out, uint64(len(data))), data...)
		}
		return out
	}
	own, charter := seat.Certificate().Marshal(), seat.Charter().Marshal()
	for _, seed := range [][]byte{
		nil, {0}, {255, 255, 255, 255, 15}, {3, 8, 1},
		frame(&meshv1.Greeting{Certificate: own, Epoch: 1}),
		frame(&meshv1.Greeting{Epoch: 1 << 60}, &meshv1.Update{Charter: charter}),
		frame(&meshv1.Answer{Verdict: meshv1.Verdict_VERDICT_WELCOME, Certificate: own, Epoch: 2, Charter: charter}),
		frame(&meshv1.Answer{Verdict: meshv1.Verdict_VERDICT_UPDATE}, &meshv1.Answer{Verdict: meshv1.Verdict_VERDICT_CLOCK}),
		frame(&meshv1.Knock{Invite: make([]byte, 32), Proof: make([]byte, 64)}, &meshv1.Application{Name: "eve"}),
	} {
		f.Add(seed)
	}
	door := hello.NewDoor(seat, nil, nil)
	f.Fuzz(func(t *testing.T, said []byte) {
		for _, dialed := range []bool{false, true} {
			conn := &spoken{said: bytes.NewReader(said)}
			if door.Greet(conn, stranger.ID(), dialed) == nil {
				t.Errorf("a stranger is greeted (dialed %v)", dialed)
			}
			if !dialed && conn.answered > 16 {
				t.Errorf("a stranger hears %d bytes", conn.answered)
			}
		}
		conn := &spoken{said: bytes.NewReader(said)}
		door.Visit(conn, stranger.ID())
		if conn.answered > 16 {
			t.Errorf("a visitor without an invite hears %d bytes", conn.answered)
		}
		if n, epoch := len(seat.Members()), seat.Charter().Epoch; n != 1 || epoch != 1 {
			t.Fatalf("%d members, charter %d", n, epoch)
		}
	})
}
