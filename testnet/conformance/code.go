package conformance

import (
	"slices"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wantCode fails unless err carries one of the codes; subject says what was asked.
func wantCode(t T, err error, subject string, want ...codes.Code) bool {
	t.Helper()
	if got := status.Code(err); !slices.Contains(want, got) {
		t.Errorf("%s: got code %s (%v), want %v", subject, got, err, want)
		return false
	}
	return true
}

// wantStatus is wantCode for a status inside a response.
func wantStatus(t T, st *spb.Status, subject string, want ...codes.Code) {
	t.Helper()
	if got := codes.Code(st.GetCode()); !slices.Contains(want, got) {
		t.Errorf("%s: got status %s (%q), want %v", subject, got, st.GetMessage(), want)
	}
}

// wantRefused fails when a request that no server may carry out was carried out. Codes that say
// the server is at fault, or that it does not know the method, are no refusal.
func wantRefused(t T, err error, subject string) {
	t.Helper()
	switch status.Code(err) {
	case codes.OK:
		t.Errorf("%s: was accepted, want an error", subject)
	case codes.Internal, codes.Unknown, codes.Unimplemented, codes.DeadlineExceeded, codes.DataLoss:
		t.Errorf("%s: got %v, want an error that says the request is at fault", subject, err)
	}
}
