package casfake_test

import (
	"context"
	"errors"
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/casfake"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
)

func TestConformance(t *testing.T) {
	castest.Run(t, func(_ *testing.T, o cas.Options) castest.Store { return casfake.New(o) })
}

func TestFaultsAreVisible(t *testing.T) {
	s, ctx := casfake.New(cas.Options{}), context.Background()
	a, b := castest.Make(1, 100), castest.Make(2, 100)
	for _, blob := range []cas.Blob{a, b} {
		if err := s.Put(ctx, blob.Digest, blob.Data); err != nil {
			t.Fatal(err)
		}
	}
	if !s.Lose(a.Digest) || s.Lose(a.Digest) || s.Contains(a.Digest) || s.Removals() != 1 {
		t.Error("a lost blob is still there or was not counted")
	}
	if !s.Damage(b.Digest) {
		t.Error("the blob was not there to damage")
	}
	report, err := s.Verify(ctx, cas.VerifyOptions{})
	if err != nil || len(report.Corrupt) != 1 || report.Corrupt[0] != b.Digest || s.Contains(b.Digest) {
		t.Errorf("damage gave %+v, %v", report, err)
	}
	failure := errors.New("wires cut")
	s.FailWith(failure)
	if err := s.Put(ctx, a.Digest, a.Data); !errors.Is(err, failure) {
		t.Errorf("put gave %v", err)
	}
	s.FailWith(nil)
	if err := s.Put(ctx, a.Digest, a.Data); err != nil {
		t.Errorf("put gave %v", err)
	}
}
