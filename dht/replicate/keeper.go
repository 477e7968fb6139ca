package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/dht/share"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// Adopter takes results of others in.
type Adopter interface {
	// Answers tells what is here.
	Answers(ctx context.Context, keys []cid.Key) ([]share.Answer, error)
	// Adopt checks a receipt that belongs under key, brings all of its result here from a member, and
	// announces it.
	Adopt(ctx context.Context, raw []byte, key cid.Key, from peer.ID) error
}

// Keeper takes copies of what others made. It implements share.Keeper. All fields must be set.
type Keeper struct {
	Adopter Adopter
	Dialer  locate.Dialer
	// Refuse gives why no copies are taken now, for people; nil: they are.
	Refuse func() error
	// Slots bounds how many calls are served at once; others are refused.
	Slots chan struct{}
}

// errBusy is why a Keeper takes nothing while it takes much.
var errBusy = errors.New("it takes copies already")

// Keep tells for each key whether it is here, after it tried to have it.
func (k *Keeper) Keep(ctx context.Context, from peer.ID, keys []cid.Key) (kept []bool, refused, err error) {
	answers, err := k.Adopter.Answers(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	kept = make([]bool, len(keys))
	var open []int
	for i, a := range answers {
		if kept[i] = a.Complete; !a.Complete {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return kept, nil, nil
	}
	if refused = k.Refuse(); refused != nil {
		return kept, refused, nil
	}
	select {
	case k.Slots <- struct{}{}:
		defer func() { <-k.Slots }()
	default:
		return kept, errBusy, nil
	}
	receipts, err := k.receipts(ctx, from, keys, open)
	if err != nil {
		return kept, err, nil
	}
	for n, i := range open {
		for _, raw := range receipts[n] {
			if refused = k.Refuse(); refused != nil || ctx.Err() != nil {
				return kept, refused, ctx.Err()
			}
			if err := k.Adopter.Adopt(ctx, raw, keys[i], from); err == nil {
				kept[i] = true
				break
			}
		}
	}
	return kept, nil, nil
}

// receipts asks a member for what it knows about those keys that are open.
func (k *Keeper) receipts(ctx context.Context, from peer.ID, keys []cid.Key, open []int) ([][][]byte, error) {
	conn, err := k.Dialer.Control(ctx, from)
	if err != nil {
		return nil, err
	}
	q := &contentv1.ResultsRequest{}
	for _, i := range open {
		q.Keys = append(q.Keys, keys[i][:])
	}
	r, err := contentv1.NewContentClient(conn).Results(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(r.Answers) != len(open) {
		return nil, fmt.Errorf("%d answers to %d questions", len(r.Answers), len(open))
	}
	all := make([][][]byte, len(open))
	for i, a := range r.Answers {
		all[i] = a.Receipts
	}
	return all, nil
}
