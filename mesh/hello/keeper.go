package hello

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/mesh/member"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// Members is how the Keeper reaches other members.
type Members interface {
	// Control is the connection for small calls to a peer.
	Control(ctx context.Context, id peer.ID) (grpc.ClientConnInterface, error)
}

// Times of the Keeper.
const (
	keepInterval = time.Minute      // between two looks at the certificate and the secret
	callTimeout  = 10 * time.Second // of one call to a member
	spread       = 8                // members told of a newer charter at once
)

// Keeper keeps this node's certificate and charter fresh.
type Keeper struct {
	seat    *member.Seat
	members Members
	now     func() time.Time
	changed chan struct{} // a newer charter is there: tell others
}

// NewKeeper makes a Keeper; Run must be called.
func NewKeeper(seat *member.Seat, members Members, now func() time.Time) *Keeper {
	k := &Keeper{seat: seat, members: members, now: now, changed: make(chan struct{}, 1)}
	seat.Watch(func(member.Change) { k.wake() })
	return k
}

// wake makes Run look now.
func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run works until ctx ends: it renews the certificate in time, fetches a secret that is missing, and
// tells the members it knows of a newer charter.
func (k *Keeper) Run(ctx context.Context) {
	var told uint64 // epoch all known members were told of
	for {
		k.renew(ctx)
		if _, complete := k.seat.Secrets(); !complete {
			k.fetch(ctx)
		}
		if epoch := k.seat.Charter().Epoch; epoch > told {
			k.tellAll(ctx)
			told = epoch
		}
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		case <-time.After(keepInterval + rand.N(keepInterval/4)):
		}
	}
}

// renew renews the certificate when it is time. What fails now is tried again at the next look: ten
// days are left.
func (k *Keeper) renew(ctx context.Context) {
	if k.now().Before(k.seat.Certificate().RenewAt()) {
		return
	}
	if k.seat.IsSteward() {
		_ = k.seat.RenewOwn() // its age is shown by buildmesh members
		return
	}
	for _, s := range k.seat.Charter().Stewards {
		if s.Until.IsZero() && k.call(ctx, s.Peer, Renew) == nil {
			return
		}
	}
}

// fetch asks members for the secret of the charter's epoch until one has it.
func (k *Keeper) fetch(ctx context.Context) {
	for _, id := range k.others() {
		if k.call(ctx, id, Sync) == nil {
			if _, complete := k.seat.Secrets(); complete {
				return
			}
		}
	}
}

// tellAll brings every member it knows to the newest charter; who cannot be reached learns it from the
// next it greets.
func (k *Keeper) tellAll(ctx context.Context) {
	for batch := range slices.Chunk(k.others(), spread) {
		done := make(chan struct{})
		for _, id := range batch {
			go func() {
				_ = k.call(ctx, id, Sync)
				done <- struct{}{}
			}()
		}
		for range batch {
			<-done
		}
	}
}

// others are the members this node knows, in no order.
func (k *Keeper) others() []peer.ID {
	var out []peer.ID
	for _, c := range k.seat.Members() {
		if c.Peer != k.seat.ID() {
			out = append(out, c.Peer)
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// call makes one call to a member.
func (k *Keeper) call(ctx context.Context, id peer.ID, f func(context.Context, grpc.ClientConnInterface, *member.Seat) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := k.members.Control(ctx, id)
	if err != nil {
		return err
	}
	return f(ctx, conn, k.seat)
}
