package logstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
)

func open(t testing.TB, bend ...func(*Options)) *Streams {
	t.Helper()
	o := Options{Dir: filepath.Join(t.TempDir(), "logs")}
	for _, b := range bend {
		b(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t testing.TB, s *Streams) (name, writeName string) {
	t.Helper()
	name, writeName, err := s.Create("projects/1")
	if err != nil {
		t.Fatal(err)
	}
	return name, writeName
}

// tail is a Read in a goroutine.
type tail struct {
	mu   sync.Mutex // guards got
	got  bytes.Buffer
	done chan error
}

func startTail(ctx context.Context, s *Streams, name string, offset, limit int64) *tail {
	r := &tail{done: make(chan error, 1)}
	go func() {
		r.done <- s.Read(ctx, name, offset, limit, func(p []byte) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got.Write(p)
			return nil
		})
	}()
	return r
}

func (r *tail) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.String()
}

// write appends at the committed end and fails the test when that fails.
func write(t testing.TB, s *Streams, writeName, text string, finish bool) {
	t.Helper()
	at, _, err := s.Committed(writeName)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write(writeName, at, []byte(text), finish); err != nil || n != at+int64(len(text)) {
		t.Fatalf("committed %d, %v", n, err)
	}
}

func TestWriteAndTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		name, writeName := create(t, s)
		whole, rest, limited := startTail(t.Context(), s, name, 0, 0), startTail(t.Context(), s, name, 3, 0), startTail(t.Context(), s, name, 1, 4)
		synctest.Wait()
		for i, text := range []string{"one ", "two ", "three"} {
			write(t, s, writeName, text, false)
			synctest.Wait()
			if got := whole.text(); !strings.HasSuffix(got, text) {
				t.Errorf("after write %d the reader has %q", i, got)
			}
		}
		if err := <-limited.done; err != nil || limited.text() != "ne t" {
			t.Errorf("with a limit: %q, %v", limited.text(), err)
		}
		write(t, s, writeName, "", true)
		for want, r := range map[string]*tail{"one two three": whole, " two three": rest} {
			if err := <-r.done; err != nil || r.text() != want {
				t.Errorf("read %q, %v, want %q", r.text(), err, want)
			}
		}
		late := startTail(t.Context(), s, name, 0, 0)
		if err := <-late.done; err != nil || late.text() != "one two three" {
			t.Errorf("afterwards: %q, %v", late.text(), err)
		}
		if size, final, err := s.Committed(writeName); size != 13 || !final || err != nil {
			t.Errorf("committed %d, final %v, %v", size, final, err)
		}
	})
}

func TestWrongUses(t *testing.T) {
	s := open(t, func(o *Options) { o.MaxBytes = 10 })
	name, writeName := create(t, s)
	_, other := create(t, s)
	write(t, s, writeName, "abc", false)
	finished, finishedWrite := create(t, s)
	write(t, s, finishedWrite, "abc", true)
	read := func(name string, offset, limit int64) error {
		return s.Read(t.Context(), name, offset, limit, func([]byte) error { return nil })
	}
	put := func(name string, offset int64, text string) error {
		_, err := s.Write(name, offset, []byte(text), false)
		return err
	}
	token := other[strings.LastIndexByte(other, '/'):]
	unknown := strings.Repeat("0", idSize)
	for what, c := range map[string]struct{ got, want error }{
		"read by the write name":       {read(writeName, 0, 0), ErrName},
		"write by the public name":     {put(name, 3, "x"), ErrName},
		"another stream's token":       {put(name+token, 3, "x"), ErrNotFound},
		"unknown stream":               {read("a/logstreams/"+unknown, 0, 0), ErrNotFound},
		"no such name":                 {read("a/b/c", 0, 0), ErrName},
		"negative offset":              {read(name, -1, 0), ErrOffset},
		"negative limit":               {read(name, 0, -1), ErrName},
		"beyond a final stream":        {read(finished, 4, 0), ErrOffset},
		"at the end of a final stream": {read(finished, 3, 0), nil},
		"overwriting":                  {put(writeName, 0, "x"), ErrOffset},
		"leaving a hole":               {put(writeName, 4, "x"), ErrOffset},
		"a negative place":             {put(writeName, -1, "x"), ErrOffset},
		"writing to a final stream":    {put(finishedWrite, 3, "x"), ErrFinal},
		"writing more than fits":       {put(writeName, 3, "12345678"), ErrFull},
		"writing as much as fits":      {put(writeName, 3, "1234567"), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	if err := read(writeName, 0, 0); strings.Contains(err.Error(), writeName) {
		t.Errorf("the secret stands in the error: %v", err)
	}
	if _, _, err := s.Committed(name); !errors.Is(err, ErrName) {
		t.Errorf("Committed by the public name: %v", err)
	}
	for _, parent := range []string{"a//b", "/a", "a/", "logstreams", strings.Repeat("x", 513)} {
		if _, _, err := s.Create(parent); !errors.Is(err, ErrName) {
			t.Errorf("parent %.20q: %v", parent, err)
		}
	}
	broken := errors.New("client gone")
	if err := s.Read(t.Context(), finished, 0, 0, func([]byte) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a send that fails: %v", err)
	}
}

func TestNames(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 2)
	for name, want := range map[string]bool{
		"a/logstreams/" + id:                                 true,
		"a/b/logstreams/" + id + "/" + id:                    true,
		"logstreams/" + id:                                   true, // an empty parent
		"a/logstreams/never-given":                           true,
		"a/logstreams/" + id + "/x":                          true,
		"a/logstreams/" + id + "/":                           false,
		"a/logstreams/":                                      false,
		"a/logstreams/" + id + "/" + id + "/" + id:           false,
		"uploads/u/blobs/" + id + id + "/1/logstreams/" + id: false,
		"logstreams/blobs/" + id + id + "/12":                false,
		"logstreams/uploads/" + id + "/blobs/" + id + "/1":   false,
		"": false, "/": false,
	} {
		if IsName(name) != want {
			t.Errorf("IsName(%q) is %v", name, !want)
		}
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		path := filepath.Join(t.TempDir(), "stdout")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		name, finish := s.Follow(path)
		if !IsName(name) {
			t.Fatalf("name %q", name)
		}
		r := startTail(t.Context(), s, name, 0, 0)
		for i := range 3 {
			fmt.Fprintf(file, "line %d\n", i)
			time.Sleep(pollLast) // more than enough for the next look
			synctest.Wait()
			if got := r.text(); !strings.HasSuffix(got, fmt.Sprintf("line %d\n", i)) {
				t.Errorf("after line %d the reader has %q", i, got)
			}
		}
		fmt.Fprint(file, "last words")
		file.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		finish()
		finish()
		if err := <-r.done; err != nil || r.text() != "line 0\nline 1\nline 2\nlast words" {
			t.Errorf("read %q, %v", r.text(), err)
		}
		late := startTail(t.Context(), s, name, 28, 0)
		if err := <-late.done; err != nil || late.text() != r.text()[28:] {
			t.Errorf("afterwards %q, %v", late.text(), err)
		}
		if _, err := s.Write(name, 0, nil, true); !errors.Is(err, ErrName) {
			t.Errorf("writing to a followed file: %v", err)
		}
	})
}

func TestFollowNothing(t *testing.T) {
	s := open(t)
	name, finish := s.Follow(filepath.Join(t.TempDir(), "none"))
	if name != "" {
		t.Errorf("name %q", name)
	}
	finish()
}

func TestReaderMayLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		name, _ := create(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		r := startTail(ctx, s, name, 0, 0)
		synctest.Wait()
		cancel()
		if err := <-r.done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestFinalStreamsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, func(o *Options) { o.Retention = time.Minute; o.RetainedBytes = 10 })
		known := func(name string) bool {
			return !errors.Is(s.Read(t.Context(), name, 0, 0, func([]byte) error { return nil }), ErrNotFound)
		}
		var names []string
		for range 3 {
			name, writeName := create(t, s)
			write(t, s, writeName, "12345", true)
			names = append(names, name)
			time.Sleep(time.Second)
		}
		if known(names[0]) || !known(names[1]) || !known(names[2]) {
			t.Error("not the last ten bytes are kept")
		}
		time.Sleep(58*time.Second + time.Millisecond)
		if known(names[1]) || !known(names[2]) {
			t.Error("not the last minute is kept")
		}
		time.Sleep(time.Second)
		if known(names[2]) {
			t.Error("a stream is known after its time")
		}
		left, err := os.ReadDir(s.options.Dir)
		if err != nil || len(left) != 0 {
			t.Errorf("%d files are left, %v", len(left), err)
		}
	})
}

func TestForgottenStreamIsReadToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, func(o *Options) { o.Retention = time.Second })
		name, writeName := create(t, s)
		write(t, s, writeName, strings.Repeat("x", 2*pieceSize), true)
		got, goOn := 0, make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- s.Read(t.Context(), name, 0, 0, func(p []byte) error {
				got += len(p)
				<-goOn
				return nil
			})
		}()
		time.Sleep(2 * time.Second)
		if _, _, err := s.Committed(writeName); !errors.Is(err, ErrNotFound) {
			t.Errorf("still known: %v", err)
		}
		close(goOn)
		if err := <-done; err != nil || got != 2*pieceSize {
			t.Errorf("read %d bytes, %v", got, err)
		}
	})
}

func TestBoundedCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, func(o *Options) { o.MaxStreams = 2; o.Idle = time.Hour })
		_, first := create(t, s)
		create(t, s)
		if _, _, err := s.Create("p"); !errors.Is(err, ErrFull) {
			t.Errorf("a third one: %v", err)
		}
		if name, _ := s.Follow(s.options.Dir); name != "" {
			t.Error("a third one is followed")
		}
		write(t, s, first, "done", true)
		name, writeName := create(t, s) // in place of the final one
		if _, _, err := s.Committed(first); !errors.Is(err, ErrNotFound) {
			t.Errorf("the final one made no room: %v", err)
		}
		r := startTail(t.Context(), s, name, 0, 0)
		time.Sleep(59 * time.Minute)
		write(t, s, writeName, "alive", false)
		time.Sleep(2 * time.Minute)
		create(t, s) // in place of the other one, idle for an hour
		if _, _, err := s.Committed(writeName); err != nil {
			t.Errorf("the one that is written made room: %v", err)
		}
		write(t, s, writeName, "", true)
		if err := <-r.done; err != nil {
			t.Error(err)
		}
	})
}

func TestOpenRemovesLeftovers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"log-1", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, func(o *Options) { o.Dir = dir })
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "other" {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestCloseEndsReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		name, writeName := create(t, s)
		write(t, s, writeName, "abc", false)
		r := startTail(t.Context(), s, name, 0, 0)
		synctest.Wait()
		s.Close()
		if err := <-r.done; err != nil || r.text() != "abc" {
			t.Errorf("read %q, %v", r.text(), err)
		}
		if _, _, err := s.Create("p"); err == nil {
			t.Error("a closed set takes streams")
		}
	})
}

func TestService(t *testing.T) {
	s := open(t)
	marked := errors.New("status")
	service := &Service{Streams: s, Status: func(error) error { return marked }}
	made, err := service.CreateLogStream(t.Context(), &logpb.CreateLogStreamRequest{Parent: "p"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Name, "p/logstreams/") || !strings.HasPrefix(made.WriteResourceName, made.Name+"/") {
		t.Errorf("names %q and %q", made.Name, made.WriteResourceName)
	}
	if _, err := service.CreateLogStream(t.Context(), &logpb.CreateLogStreamRequest{Parent: "p//q"}); !errors.Is(err, marked) {
		t.Errorf("with a parent that is no name: %v", err)
	}
}

// TestManyReadersAndWriters is for the race detector.
func TestManyReadersAndWriters(t *testing.T) {
	s := open(t, func(o *Options) { o.RetainedBytes = 1000 })
	var wg sync.WaitGroup
	for range 8 {
		name, writeName := create(t, s)
		for range 3 {
			wg.Go(func() {
				got := 0
				err := s.Read(t.Context(), name, 0, 0, func(p []byte) error { got += len(p); return nil })
				if err == nil && got != 500 || err != nil && !errors.Is(err, ErrNotFound) {
					t.Errorf("read %d bytes, %v", got, err)
				}
			})
		}
		wg.Go(func() {
			for i := range 50 {
				if _, err := s.Write(writeName, int64(i*10), []byte("0123456789"), i == 49); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzNames(f *testing.F) {
	id := strings.Repeat("0123456789abcdef", 2)
	f.Add("a/logstreams/" + id)
	f.Add("a/logstreams/" + id + "/" + id)
	f.Add("blobs/x/1")
	s, err := Open(Options{Dir: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := s.Read(t.Context(), name, 0, 1, func([]byte) error { return nil })
		want := ErrName
		if IsName(name) {
			want = ErrNotFound
		}
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	})
}
