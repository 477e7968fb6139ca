package locate

import (
	"context"
	"errors"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Chain asks its locators in turn: what one does not find is asked of the next. All are told what is
// announced and forgotten.
type Chain []Locator

// Announce implements Locator.
func (c Chain) Announce(ctx context.Context, keys []cid.Key) error {
	return c.each(func(l Locator) error { return l.Announce(ctx, keys) })
}

// Forget implements Locator.
func (c Chain) Forget(ctx context.Context, keys []cid.Key) error {
	return c.each(func(l Locator) error { return l.Forget(ctx, keys) })
}

// each calls f with every locator and gives all errors.
func (c Chain) each(f func(Locator) error) error {
	var errs []error
	for _, l := range c {
		errs = append(errs, f(l))
	}
	return errors.Join(errs...)
}

// Find implements Locator.
func (c Chain) Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error) {
	found := make([][]peer.ID, len(keys))
	places := make([]int, len(keys))
	for i := range places {
		places[i] = i
	}
	var errs []error
	for _, l := range c {
		some, err := l.Find(ctx, keys)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var left []cid.Key
		var at []int
		for i, peers := range some {
			if found[places[i]] = peers; len(peers) == 0 {
				left, at = append(left, keys[i]), append(at, places[i])
			}
		}
		if keys, places = left, at; len(keys) == 0 {
			break
		}
	}
	if len(errs) > 0 && len(errs) == len(c) {
		return nil, errors.Join(errs...)
	}
	return found, nil
}

// Switch is one of several locators, chosen anew at each call. Only the chosen one is told what is
// announced: when the choice changes, the owner announces everything again.
type Switch struct {
	Choose func() Locator
}

// Announce implements Locator.
func (s Switch) Announce(ctx context.Context, keys []cid.Key) error {
	return s.Choose().Announce(ctx, keys)
}

// Forget implements Locator.
func (s Switch) Forget(ctx context.Context, keys []cid.Key) error {
	return s.Choose().Forget(ctx, keys)
}

// Find implements Locator.
func (s Switch) Find(ctx context.Context, keys []cid.Key) ([][]peer.ID, error) {
	return s.Choose().Find(ctx, keys)
}
