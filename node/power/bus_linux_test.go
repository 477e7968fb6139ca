package power

import (
	"bufio"
	"encoding/binary"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// busServer is as much of a message bus as answers questions about properties: over a socket, in the protocol's own form.
type busServer struct {
	t      *testing.T
	values map[string]any // by interface and name
}

// startBus makes a bus with these properties the system's until the test ends.
func startBus(t *testing.T, values map[string]any) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	s := &busServer{t: t, values: values}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
}

// serve lets a client in and answers it until it hangs up.
func (s *busServer) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for begun := false; !begun; {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		answer := ""
		switch line = strings.Trim(line, "\x00\r\n"); {
		case line == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		case line == "BEGIN":
			begun = true
		default:
			answer = "ERROR\r\n"
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		if err := s.answer(call).EncodeTo(conn, binary.LittleEndian); err != nil {
			s.t.Error(err)
			return
		}
	}
}

// answer replies to Hello and to Properties.Get.
func (s *busServer) answer(call *dbus.Message) *dbus.Message {
	reply := &dbus.Message{Type: dbus.TypeMethodReply, Body: []any{":1.1"}, Headers: map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(call.Serial())}}
	if call.Headers[dbus.FieldMember].Value() == "Get" {
		value, known := s.values[call.Body[0].(string)+"."+call.Body[1].(string)]
		if known {
			reply.Body = []any{dbus.MakeVariant(value)}
		} else {
			reply.Type, reply.Body = dbus.TypeError, []any{"nobody has that name"}
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.DBus.Error.ServiceUnknown")
		}
	}
	reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(reply.Body...))
	return reply
}

// The person and the network are asked of logind and NetworkManager over the system's message bus; a service that is not there is
// a fact that is not known.
func TestMachineBus(t *testing.T) {
	const user, network = "org.freedesktop.login1.Manager.IdleHint", "org.freedesktop.NetworkManager.Metered"
	for name, c := range map[string]struct {
		values  map[string]any
		want    Facts
		unknown []string
	}{
		"somebody is there on a paid network": {map[string]any{user: false, network: uint32(1)}, Facts{Active: true, Metered: true}, nil},
		"nobody at a cable":                   {map[string]any{user: true, network: uint32(2)}, Facts{}, nil},
		"no NetworkManager":                   {map[string]any{user: false}, Facts{Active: true}, []string{"metered network"}},
		"neither":                             {nil, Facts{}, []string{"metered network", "user"}},
	} {
		t.Run(name, func(t *testing.T) {
			startBus(t, c.values)
			readers, closeAll := MachineReaders(nil)
			readers = slices.DeleteFunc(readers, func(r Reader) bool { return r.Name() != "user" && r.Name() != "metered network" })
			g, err := New(Options{Dir: t.TempDir(), Policy: DefaultPolicy(), Readers: readers})
			if err != nil {
				t.Fatal(err)
			}
			f, faults := g.Facts()
			if unknown := slices.Sorted(maps.Keys(faults)); f != c.want || !slices.Equal(unknown, c.unknown) {
				t.Errorf("%+v, want %+v; not known: %v, want %v", f, c.want, faults, c.unknown)
			}
			if err := closeAll(); err != nil {
				t.Error(err)
			}
		})
	}
}
