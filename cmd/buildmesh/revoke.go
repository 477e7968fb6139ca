package main

import (
	"fmt"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// revokeVerb is `buildmesh revoke`.
type revokeVerb struct {
	Peer    string `arg:"" help:"Name, peer id or end of a peer id, as buildmesh members shows it."`
	Since   string `placeholder:"TIME" help:"Keep the results that came from it before: 2h (ago), 2026-11-25 or 2026-11-25T14:00 (default: drop all it signed)."`
	RootKey string `placeholder:"FILE" help:"The mesh's root key (default: in the node's state directory)."`
}

// Run turns a member out.
func (r *revokeVerb) Run(v *verbContext) error {
	request := &controlv1.RevokeRequest{Peer: r.Peer}
	if r.Since != "" {
		since, err := moment(r.Since, time.Now())
		if err != nil {
			return usageError{err}
		}
		request.Since = timestamppb.New(since)
	}
	var err error
	if request.RootKey, err = wholePath(r.RootKey); err != nil {
		return err
	}
	client, err := v.dial()
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.Mesh.Revoke(v.ctx, request)
	if err != nil {
		return plain(err)
	}
	_, err = fmt.Fprintf(v.out, "revoked %s (%s); members learn it from this node, charter %d, and from each other\n", dash(answer.Name), answer.PeerId, answer.Epoch)
	return err
}

// moment reads a time: so long before now, a day or a minute of local time, or RFC 3339.
func moment(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.DateOnly, "2006-01-02T15:04", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %s is no time like 2h, 2026-11-25 or 2026-11-25T14:00", text)
}
