package node

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/exec/journal"
	"github.com/buildmesh/buildmesh/exec/place"
	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/node/bridge"
	"github.com/buildmesh/buildmesh/node/config"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
)

// openJournal opens the journal of the actions that this node's clients ask for. What it tells of earlier ones is what actions
// are expected to need from the start.
func (n *Node) openJournal(context.Context) error {
	n.history = place.NewHistory()
	j, err := journal.Open(journal.Options{
		Dir: filepath.Join(n.config.Dir.Cache, "journal"), Name: n.nameOf, Learned: n.history.Add,
		OnError: func(err error) { n.log.Warn("actions are not noted for buildmesh why", "err", err) },
	})
	if err != nil {
		return err
	}
	n.journal = j
	n.onClose("journal", j.Close)
	return nil
}

// nameOf is what people call a peer.
func (n *Node) nameOf(id peer.ID) string {
	switch {
	case id == n.identity.ID():
		return n.config.Node.Name
	case n.content == nil:
		return id.Short()
	}
	return n.content.nameOf(id)
}

// journalAnswers is the node as the command line asks it about actions.
type journalAnswers struct {
	controlv1.UnimplementedJournalServer
	node *Node
}

// Why implements controlv1.JournalServer.
func (a journalAnswers) Why(ctx context.Context, q *controlv1.WhyRequest) (*controlv1.WhyResponse, error) {
	j := a.node.journal
	if err := j.Flush(ctx); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	found, err := j.Find(journal.Query{Subject: q.Subject, Label: labelOf})
	switch {
	case errors.Is(err, journal.ErrUnknown) && q.Subject == "":
		return nil, status.Error(codes.NotFound, "no client has asked this node for an action yet")
	case errors.Is(err, journal.ErrUnknown):
		return nil, status.Errorf(codes.NotFound, "no action and no target %q is in the journal; %s", q.Subject, insteadOf(q.Subject, j.Targets()))
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	answer := &controlv1.WhyResponse{Entry: found.Entry, Also: found.Also, MoreAlso: int64(found.More), Lost: j.Lost()}
	if err = a.name(answer.Entry); err == nil {
		answer.Before, err = j.Before(found.Entry)
	}
	if err == nil {
		answer.Same, err = j.Last(found.Entry)
	}
	if err == nil && answer.Before != nil {
		err = a.compare(ctx, answer)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return answer, nil
}

// name adds what an action is called that its client looked for without a word, if it has been named before.
func (a journalAnswers) name(e *journalv1.Entry) error {
	if e.Mnemonic+e.Target+e.Words != "" {
		return nil
	}
	named, err := a.node.journal.Named(e.Action)
	if err == nil && named[0] != nil {
		e.Mnemonic, e.Target, e.Words = named[0].Mnemonic, named[0].Target, named[0].Words
	}
	return err
}

// maxTried is how many targets are proposed for one that is not known.
const maxTried = 3

// insteadOf says what to ask for instead of a subject that is not known: the latest targets that contain it, else the one that is
// written most like it, else the last action.
func insteadOf(subject string, targets []string) string {
	var near []string
	for _, target := range targets {
		if len(near) < maxTried && strings.Contains(target, subject) {
			near = append(near, target)
		}
	}
	if best := config.Nearest(subject, targets); len(near) == 0 && best != "" {
		near = append(near, best)
	}
	if len(near) == 0 {
		return "the last action is shown by: buildmesh why --last"
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// compare adds what differs from the action before.
func (a journalAnswers) compare(ctx context.Context, answer *controlv1.WhyResponse) error {
	d, err := journal.Compare(ctx, a.node.store, answer.Before, answer.Entry)
	if err != nil {
		return err
	}
	answer.MoreChanges, answer.Unknown = int64(d.More), d.Unknown
	for _, c := range d.Changes {
		answer.Changes = append(answer.Changes, &controlv1.Change{Part: c.Part, Subject: c.Subject, What: c.What, Old: c.Old, New: c.New})
	}
	return nil
}

// labelOf gives targets that mean the same one spelling.
func labelOf(target string) string {
	if label, err := bridge.Label(target); err == nil {
		return label
	}
	return target
}
