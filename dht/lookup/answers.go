package lookup

import (
	"context"
	"errors"

	"github.com/buildmesh/buildmesh/dht/actioncache"
	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/receipt"
	"github.com/buildmesh/buildmesh/dht/share"
)

// Answers implements share.Results: what this node tells others.
func (l *Lookup) Answers(ctx context.Context, keys []cid.Key) ([]share.Answer, error) {
	raw, err := l.options.Receipts.Raw(keys)
	if err != nil {
		return nil, err
	}
	answers := make([]share.Answer, len(keys))
	for i, receipts := range raw {
		if l.options.Holders != nil {
			answers[i].Holders = l.options.Holders(keys[i : i+1])[0]
		}
		var about receipt.Statement
		for _, one := range receipts {
			s, err := receipt.Peek(one)
			if err != nil || l.trusted(s) != nil {
				continue // nobody would believe it
			}
			answers[i].Receipts, about = append(answers[i].Receipts, one), s
		}
		if len(answers[i].Receipts) == 0 {
			continue
		}
		_, err = l.options.Results.Get(ctx, actioncache.Key{Action: about.Action, Root: about.Root})
		if err != nil && !errors.Is(err, actioncache.ErrNotFound) {
			return nil, err
		}
		answers[i].Complete = err == nil
	}
	return answers, nil
}

// Sweep forgets the announcements of results that are no longer complete here, up to limit of those keys
// begins with, and gives the keys not looked at yet. It is called when blobs were evicted.
func (l *Lookup) Sweep(ctx context.Context, keys []cid.Key, limit int) (rest []cid.Key, err error) {
	piece := keys[:min(limit, len(keys))]
	answers, err := l.Answers(ctx, piece)
	if err != nil {
		return keys, err
	}
	var gone []cid.Key
	for i, a := range answers {
		if !a.Complete {
			gone = append(gone, piece[i])
		}
	}
	if len(gone) > 0 {
		err = l.options.Locator.Forget(ctx, gone)
	}
	return keys[len(piece):], err
}

// AnnounceAll announces every receipt there is: after a start, or to another locator.
func (l *Lookup) AnnounceAll(ctx context.Context) error {
	keys, err := l.Keys()
	if err != nil || len(keys) == 0 {
		return err
	}
	return l.options.Locator.Announce(ctx, keys)
}

// Keys lists the keys of all receipts.
func (l *Lookup) Keys() ([]cid.Key, error) {
	var keys []cid.Key
	err := l.options.Receipts.Keys(func(k cid.Key) error {
		keys = append(keys, k)
		return nil
	})
	return keys, err
}
