package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	logpb "github.com/bazelbuild/remote-apis/build/bazel/remote/logstream/v1"
	bspb "google.golang.org/genproto/googleapis/bytestream"
	"google.golang.org/grpc/codes"
)

// logStreamChecks hold of the Log Stream API, which a server may leave out.
func logStreamChecks() []Check {
	needs := []Feature{LogStream}
	return []Check{
		{
			Claim: "a_log_stream_has_two_names", Needs: needs, Run: checkLogNames, Source: "message LogStream",
			Rule: "name is {parent}/logstreams/{id}, write_resource_name goes on with a secret that is new each time",
		},
		{
			Claim: "what_is_written_is_read", Needs: needs, Run: checkLogWritten, Source: "remote_logstream.proto, Reading LogStreams",
			Rule: "a finalised stream reads whole, from any offset",
		},
		{
			Claim: "a_reader_tails_until_the_stream_is_finalised", Needs: needs, Run: checkLogTail, Source: "remote_logstream.proto, Reading LogStreams",
			Rule: "a read of an unfinished stream gives what is there, waits for more and ends when it is finalised",
		},
		{
			Claim: "a_log_stream_is_written_in_several_calls", Needs: needs, Run: checkLogCalls, Source: "remote_logstream.proto, Writing LogStreams",
			Rule: "a Write may end without finish_write; the next one goes on at its offset",
		},
		{
			Claim: "the_write_name_cannot_be_read", Needs: needs, Run: checkLogWriteName, Source: "LogStream.write_resource_name: must return INVALID_ARGUMENT",
			Rule: "reading write_resource_name gets INVALID_ARGUMENT",
		},
		{
			Claim: "the_public_name_cannot_be_written", Needs: needs, Run: checkLogPublicName, Source: "LogStream.name: is an error",
			Rule: "writing name is an error",
		},
		{
			Claim: "a_finalised_log_stream_cannot_be_appended_to", Needs: needs, Run: checkLogFinal, Source: "remote_logstream.proto, Writing LogStreams",
			Rule: "a write after finish_write is an error and changes nothing",
		},
		{
			Claim: "an_unknown_log_stream_is_NOT_FOUND", Needs: needs, Run: checkLogUnknown, Source: "rpc ByteStream.Read",
			Rule: "reading a log stream nobody created gets NOT_FOUND; guessing a write name is an error",
		},
		{
			Claim: "stdout_of_a_running_execution_can_be_read", Needs: []Feature{Execution}, Level: Should, Run: checkLiveStdout, Source: "ExecuteOperationMetadata.stdout_stream_name",
			Rule: "a stream named in the metadata gives what the command prints, while it runs, and ends with it",
		},
	}
}

func (s *Subject) newLog(ctx context.Context, t T) *logpb.LogStream {
	t.Helper()
	l, err := s.Logs.CreateLogStream(ctx, &logpb.CreateLogStreamRequest{Parent: s.Instance})
	if err != nil {
		t.Fatalf("CreateLogStream: %v", err)
	}
	return l
}

func checkLogNames(ctx context.Context, t T, s *Subject) {
	a, b := s.newLog(ctx, t), s.newLog(ctx, t)
	if !strings.Contains("/"+a.Name, "/logstreams/") {
		t.Errorf("the name %q is not {parent}/logstreams/{id}", a.Name)
	}
	if !strings.HasPrefix(a.WriteResourceName, a.Name+"/") || len(a.WriteResourceName) < len(a.Name)+9 {
		t.Errorf("the write name %q is not %s/{secret}", a.WriteResourceName, a.Name)
	}
	if a.Name == b.Name || strings.TrimPrefix(a.WriteResourceName, a.Name) == strings.TrimPrefix(b.WriteResourceName, b.Name) {
		t.Errorf("two log streams are %v and %v: names and secrets have to differ", a, b)
	}
}

func checkLogWritten(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	data := s.Blob(3*piece + 100)
	if n, err := s.Write(ctx, l.WriteResourceName, data); err != nil || n != int64(len(data)) {
		t.Fatalf("ByteStream.Write of a log stream: committed %d, %v, want %d", n, err, len(data))
	}
	for _, off := range []int{0, 1, piece + 5, len(data)} {
		if got, err := s.Read(ctx, l.Name, int64(off), 0); err != nil || !bytes.Equal(got, data[off:]) {
			t.Errorf("ByteStream.Read of a log stream from %d: %d bytes, %v, want %d", off, len(got), err, len(data)-off)
		}
	}
}

func checkLogTail(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	w, err := s.Bytes.Write(ctx)
	if err != nil {
		t.Fatalf("ByteStream.Write: %v", err)
	}
	r, err := s.Bytes.Read(ctx, &bspb.ReadRequest{ResourceName: l.Name})
	if err != nil {
		t.Fatalf("ByteStream.Read: %v", err)
	}
	var sent, got []byte
	for i := range 5 {
		line := append([]byte{byte('0' + i), ' '}, s.Text(40)...)
		req := &bspb.WriteRequest{Data: line, WriteOffset: int64(len(sent))}
		if i == 0 {
			req.ResourceName = l.WriteResourceName
		}
		if err := w.Send(req); err != nil {
			t.Fatalf("ByteStream.Write, line %d: %v", i, err)
		}
		sent = append(sent, line...)
		for len(got) < len(sent) {
			resp, err := r.Recv()
			if err != nil {
				t.Fatalf("ByteStream.Read while line %d is written: %v after %d of %d bytes", i, err, len(got), len(sent))
			}
			got = append(got, resp.Data...)
		}
	}
	if err := w.Send(&bspb.WriteRequest{WriteOffset: int64(len(sent)), FinishWrite: true}); err != nil {
		t.Fatalf("ByteStream.Write, the end: %v", err)
	}
	if _, err := w.CloseAndRecv(); err != nil {
		t.Errorf("ByteStream.Write of a log stream: %v", err)
	}
	if resp, err := r.Recv(); !errors.Is(err, io.EOF) && (err != nil || len(resp.Data) > 0) {
		t.Errorf("ByteStream.Read of a finalised log stream goes on: %v, %v", resp, err)
	}
	if !bytes.Equal(sent, got) {
		t.Errorf("the reader has %q, want %q", got, sent)
	}
}

func checkLogCalls(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	a, b := s.Blob(100), s.Blob(50)
	if n, err := s.Send(ctx, &bspb.WriteRequest{ResourceName: l.WriteResourceName, Data: a}); err != nil || n != 100 {
		t.Fatalf("ByteStream.Write of a log stream without finish_write: committed %d, %v, want 100", n, err)
	}
	if n, err := s.Send(ctx, &bspb.WriteRequest{ResourceName: l.WriteResourceName, WriteOffset: 100, Data: b, FinishWrite: true}); err != nil || n != 150 {
		t.Fatalf("the second ByteStream.Write of a log stream: committed %d, %v, want 150", n, err)
	}
	if got, err := s.Read(ctx, l.Name, 0, 0); err != nil || !bytes.Equal(got, append(a, b...)) {
		t.Errorf("a log stream written in two calls reads as %d bytes, %v", len(got), err)
	}
}

func checkLogWriteName(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	_, err := s.Read(ctx, l.WriteResourceName, 0, 0)
	wantCode(t, err, "ByteStream.Read of a write name", codes.InvalidArgument)
}

func checkLogPublicName(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	_, err := s.Write(ctx, l.Name, []byte("intruder"))
	wantRefused(t, err, "ByteStream.Write of a public name")
	_, err = s.Write(ctx, l.Name+"/guessed-secret", []byte("intruder"))
	wantRefused(t, err, "ByteStream.Write with a guessed secret")
	data := s.Blob(10)
	if _, err := s.Write(ctx, l.WriteResourceName, data); err != nil {
		t.Fatalf("ByteStream.Write of a log stream: %v", err)
	}
	if got, err := s.Read(ctx, l.Name, 0, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after an intruder's writes the log stream reads as %q, %v", got, err)
	}
}

func checkLogFinal(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	data := s.Blob(100)
	if _, err := s.Write(ctx, l.WriteResourceName, data); err != nil {
		t.Fatalf("ByteStream.Write of a log stream: %v", err)
	}
	_, err := s.Send(ctx, &bspb.WriteRequest{ResourceName: l.WriteResourceName, WriteOffset: 100, Data: []byte("more"), FinishWrite: true})
	wantRefused(t, err, "ByteStream.Write of a finalised log stream")
	if got, err := s.Read(ctx, l.Name, 0, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a finalised log stream reads as %d bytes, %v, want 100", len(got), err)
	}
}

func checkLogUnknown(ctx context.Context, t T, s *Subject) {
	l := s.newLog(ctx, t)
	unknown := strings.TrimSuffix(l.Name, l.Name[strings.LastIndex(l.Name, "/")+1:]) + newUUID()
	_, err := s.Read(ctx, unknown, 0, 0)
	wantCode(t, err, "ByteStream.Read of a log stream nobody created", codes.NotFound)
	_, err = s.Write(ctx, unknown+"/"+newUUID(), []byte("x"))
	wantRefused(t, err, "ByteStream.Write of a log stream nobody created")
}

func checkLiveStdout(ctx context.Context, t T, s *Subject) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.Start(ctx, &repb.ExecuteRequest{ActionDigest: s.newAction(ctx, t, "echo early; sleep 2; echo late")})
	if err != nil {
		t.Fatalf("Execute: %v", err)
	}
	for {
		op, err := stream.Recv()
		if err != nil {
			t.Fatalf("Execute: %v", err)
		}
		_, meta := stage(t, op)
		if op.Done {
			t.Skipf("no message of the execution named a stream of its stdout")
		}
		if meta.StdoutStreamName == "" {
			continue
		}
		s.wantLive(ctx, t, meta.StdoutStreamName)
		_ = follow(t, stream)
		return
	}
}

// wantLive reads the stdout of a command that prints early, sleeps, and prints late.
func (s *Subject) wantLive(ctx context.Context, t T, name string) {
	t.Helper()
	r, err := s.Bytes.Read(ctx, &bspb.ReadRequest{ResourceName: name})
	if err != nil {
		t.Fatalf("ByteStream.Read of %s: %v", name, err)
	}
	var got []byte
	for {
		resp, err := r.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("ByteStream.Read of %s: %v after %q", name, err, got)
			return
		}
		if got = append(got, resp.Data...); strings.Contains(string(resp.Data), "early\nlate") {
			t.Errorf("ByteStream.Read of %s gave everything at the end only", name)
		}
	}
	if string(got) != "early\nlate\n" {
		t.Errorf("ByteStream.Read of %s gave %q", name, got)
	}
}
