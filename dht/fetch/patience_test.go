package fetch_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/fetch"
	"github.com/buildmesh/buildmesh/dht/locate"
	"github.com/buildmesh/buildmesh/mesh/peer"
)

// silent takes every call and answers none.
type silent struct{}

func (s silent) Control(context.Context, peer.ID) (grpc.ClientConnInterface, error) { return s, nil }

func (s silent) Bulk(context.Context, peer.ID) (grpc.ClientConnInterface, error) { return s, nil }

func (silent) Invoke(ctx context.Context, _ string, _, _ any, _ ...grpc.CallOption) error {
	<-ctx.Done()
	return ctx.Err()
}

func (silent) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return silentStream{ctx: ctx}, nil
}

// silentStream is one such call.
type silentStream struct {
	grpc.ClientStream
	ctx context.Context
}

func (silentStream) SendMsg(any) error { return nil }

func (silentStream) CloseSend() error { return nil }

func (s silentStream) RecvMsg(any) error {
	<-s.ctx.Done()
	return s.ctx.Err()
}

// TestPatience: who is the only one to have something and never gives it is waited for, each time half as long.
func TestPatience(t *testing.T) {
	want := []time.Duration{10 * time.Second, 5 * time.Second, 2500 * time.Millisecond, 1250 * time.Millisecond, 625 * time.Millisecond, fetch.StallAfter, fetch.StallAfter}
	for name, size := range map[string]int{"small": 100, "large": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fetch.New(fetch.Options{Store: casfake.New(cas.Options{MaxBytes: 1 << 30}), Dialer: silent{}, Members: locate.Only(func() []locate.Member { return nil })})
				d, hangs := digest.SHA256.Of(make([]byte, size)), peer.ID{1}
				var waits []time.Duration
				for range want {
					began := time.Now()
					if missing, err := f.Fetch(t.Context(), []digest.Digest{d}, []peer.ID{hangs}); err != nil || len(missing) != 1 {
						t.Fatalf("missing %v, %v", missing, err)
					}
					waits = append(waits, time.Since(began))
				}
				if !slices.Equal(waits, want) {
					t.Errorf("waited %v, want %v", waits, want)
				}
			})
		})
	}
}
