package initproc

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func full() *Setup {
	return &Setup{
		Mode: Confined, Flags: WholeRoot | Offline, UID: 1, GID: 2, Base: "/base", NewRoot: "root",
		Binds:    []Bind{{Source: "/usr", Target: "/usr"}, {Source: "dev/null", Target: "/dev/null", File: true, Writable: true, Device: true}},
		Links:    []Link{{Name: "/bin", Target: "usr/bin"}},
		Hostname: "name", TmpBytes: 1 << 40,
		Lowers: []string{"a", "", "c:d"}, Upper: "upper", Work: "work", Stdout: "stdout", Stderr: "stderr",
		Writable: []string{"w"}, Readable: []string{"r"}, Directory: "/build", Directories: []string{"/build/x"}, ReadOnly: []string{"/build/y"},
		Arguments: []string{"sh", "-c", "exit"}, Env: []string{"A=B"}, Processes: 3, FileBytes: -4, MemoryBytes: 5,
	}
}

func TestSetup(t *testing.T) {
	want := full()
	v := reflect.ValueOf(*want)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test leaves %s empty", v.Type().Field(i).Name)
		}
	}
	data := want.Encode()
	got, err := DecodeSetup(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n%+v\n%+v", err, got, want)
	}
	if n, err := setupLength(data[:headerSize]); err != nil || n != len(data) {
		t.Errorf("length %d of %d, %v", n, len(data), err)
	}
	for n := range len(data) {
		if _, err := DecodeSetup(data[:n]); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := DecodeSetup(append(data, 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
}

// TestJoin proves that the ground cannot be changed by the message about the run, and the run not by the ground.
func TestJoin(t *testing.T) {
	ground := &Setup{Mode: Namespaces, Flags: BecomeGuest, UID: 7, Base: "/base", Hostname: "name", Upper: "wrong"}
	ground.join(&Setup{Mode: Confined, Flags: WatchMemory, UID: 8, Base: "/evil", Upper: "upper", Arguments: []string{"x"}})
	want := &Setup{Mode: Namespaces, Flags: BecomeGuest | WatchMemory, UID: 7, Base: "/base", Hostname: "name", Upper: "upper", Arguments: []string{"x"}}
	if !reflect.DeepEqual(ground, want) {
		t.Errorf("%+v", ground)
	}
}

func TestReport(t *testing.T) {
	want := Report{
		Kind: Ended, Stage: StageExec, Errno: 2, Subject: "subject", Status: 0x8b, Memory: true, Time: 1 << 60,
		Usage: Usage{1, 2, 3, 4, 5, 6, 7, 8, 9},
	}
	data := append(want.Encode(), (&Report{Kind: Started}).Encode()...)
	got, n, err := DecodeReport(data)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	if next, _, err := DecodeReport(data[n:]); err != nil || next.Kind != Started {
		t.Errorf("second report: %+v, %v", next, err)
	}
	for cut := range n {
		if _, used, err := DecodeReport(data[:cut]); used != 0 || err != nil {
			t.Fatalf("cut to %d bytes: %d, %v", cut, used, err)
		}
	}
	long := Report{Kind: Fault, Subject: string(make([]byte, 1<<20))}
	if n := len(long.Encode()); n > 4096 {
		t.Errorf("a report of %d bytes may be torn by a pipe", n)
	}
}

func FuzzDecodeReport(f *testing.F) {
	f.Add((&Report{Kind: Ended, Subject: "x"}).Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, n, err := DecodeReport(data)
		if err == nil && n > 0 && !bytes.Equal(r.Encode(), data[:n]) {
			t.Errorf("%+v does not encode to what it was decoded from", r)
		}
	})
}

func FuzzDecodeSetup(f *testing.F) {
	f.Add(full().Encode())
	f.Add((&Setup{}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := DecodeSetup(data); err == nil && !bytes.Equal(s.Encode(), data) {
			t.Errorf("%+v does not encode to what it was decoded from", s)
		}
	})
}
