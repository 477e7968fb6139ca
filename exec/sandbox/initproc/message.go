package initproc

// A spawner is told the ground by one Setup, and then serves requests: a Request, and for a run a Setup with what only
// that run needs. Its descriptors come with the first byte: standard output, standard error, the pipe for reports, and,
// if the action is not to start at once, a pipe to read one byte from first.

// Request is the head of a message to a spawner.
type Request struct {
	Kind   RequestKind
	ID     uint32 // chosen by the node, unique among those that run
	Length uint32 // bytes that follow
}

// RequestKind tells what is wanted.
type RequestKind uint32

// The kinds of requests.
const (
	Launch RequestKind = iota + 1 // answered by Launched, and by Gone when everything in the pid namespace is dead
	Kill                          // no answer; nothing happens to one that is gone
)

// RequestSize is how many bytes a Request takes.
const RequestSize = 12

// Encode gives the bytes that DecodeRequest reads.
func (r *Request) Encode() []byte {
	var e encoder
	e.u32(uint32(r.Kind))
	e.u32(r.ID)
	e.u32(r.Length)
	return e.b
}

// DecodeRequest reads what Encode wrote. Anything else is ErrFormat.
func DecodeRequest(b []byte) (Request, error) {
	d := decoder{b: b}
	r := Request{Kind: RequestKind(d.u32()), ID: d.u32(), Length: d.u32()}
	if d.bad || len(d.b) != 0 || r.Kind < Launch || r.Kind > Kill || r.Length > MaxMessage || r.Kind == Kill && r.Length != 0 {
		return Request{}, ErrFormat
	}
	return r, nil
}

// AnswerKind tells what an Answer is about.
type AnswerKind uint32

// The kinds of answers.
const (
	Launched AnswerKind = iota + 1
	Gone
)

// Answer is what a spawner says of a run.
type Answer struct {
	Kind                   AnswerKind
	ID                     uint32
	PID                    uint32 // Launched: of init, outside
	Errno                  uint32 // Launched: why there is no init, 0 if there is
	UserNanos, SystemNanos int64  // Gone: of all that init has reaped
	MaxRSSBytes            int64
}

// AnswerSize is how many bytes an Answer takes.
const AnswerSize = 40

// Encode gives the bytes that DecodeAnswer reads.
func (a *Answer) Encode() []byte {
	var e encoder
	for _, v := range []uint32{uint32(a.Kind), a.ID, a.PID, a.Errno} {
		e.u32(v)
	}
	for _, v := range []int64{a.UserNanos, a.SystemNanos, a.MaxRSSBytes} {
		e.i64(v)
	}
	return e.b
}

// DecodeAnswer reads what Encode wrote. Anything else is ErrFormat.
func DecodeAnswer(b []byte) (Answer, error) {
	d := decoder{b: b}
	a := Answer{Kind: AnswerKind(d.u32()), ID: d.u32(), PID: d.u32(), Errno: d.u32(), UserNanos: d.i64(), SystemNanos: d.i64(), MaxRSSBytes: d.i64()}
	if d.bad || len(d.b) != 0 || a.Kind < Launched || a.Kind > Gone {
		return Answer{}, ErrFormat
	}
	return a, nil
}
