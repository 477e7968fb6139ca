package initproc

import (
	"bytes"
	"errors"
	"testing"
)

func TestMessages(t *testing.T) {
	r := Request{Kind: Launch, ID: 1 << 31, Length: 5}
	if got, err := DecodeRequest(r.Encode()); err != nil || got != r || len(r.Encode()) != RequestSize {
		t.Errorf("%+v, %v", got, err)
	}
	a := Answer{Kind: Gone, ID: 7, PID: 8, Errno: 9, UserNanos: 1 << 40, SystemNanos: 2, MaxRSSBytes: -3}
	if got, err := DecodeAnswer(a.Encode()); err != nil || got != a || len(a.Encode()) != AnswerSize {
		t.Errorf("%+v, %v", got, err)
	}
	for name, r := range map[string]Request{
		"no kind": {}, "unknown kind": {Kind: 3}, "too long": {Kind: Launch, Length: MaxMessage + 1}, "kill with payload": {Kind: Kill, Length: 1},
	} {
		if _, err := DecodeRequest(r.Encode()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for n := range AnswerSize {
		if _, err := DecodeAnswer(a.Encode()[:n]); !errors.Is(err, ErrFormat) {
			t.Errorf("answer of %d bytes: %v", n, err)
		}
	}
}

func FuzzDecodeMessages(f *testing.F) {
	f.Add((&Request{Kind: Launch, Length: 3}).Encode())
	f.Add((&Answer{Kind: Gone, ID: 3}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := DecodeRequest(data); err == nil && !bytes.Equal(r.Encode(), data) {
			t.Errorf("%+v does not encode to what it was decoded from", r)
		}
		if a, err := DecodeAnswer(data); err == nil && !bytes.Equal(a.Encode(), data) {
			t.Errorf("%+v does not encode to what it was decoded from", a)
		}
	})
}
