package share_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// A member that is no bridge has no summary of a site, neither its own one's nor another one's, and no peer id is taken for
// one that has not its length.
func TestSummariesOfSites(t *testing.T) {
	nodes := lab(t, 2, nil)
	conn, err := nodes[1].Control(t.Context(), nodes[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		q    *contentv1.SummaryRequest
		want codes.Code
	}{
		"its own site":     {&contentv1.SummaryRequest{Site: true}, codes.FailedPrecondition},
		"another site":     {&contentv1.SummaryRequest{Site: true, Of: nodes[1].ID[:]}, codes.FailedPrecondition},
		"a short peer id":  {&contentv1.SummaryRequest{Site: true, Of: []byte("short")}, codes.InvalidArgument},
		"a longer peer id": {&contentv1.SummaryRequest{Site: true, Of: make([]byte, 33)}, codes.InvalidArgument},
	} {
		parts, err := contentv1.NewContentClient(conn).Summary(t.Context(), c.q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parts.Recv(); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
