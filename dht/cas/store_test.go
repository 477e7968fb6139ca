package cas_test

import (
	"testing"

	"github.com/buildmesh/buildmesh/dht/cas"
	"github.com/buildmesh/buildmesh/dht/cas/castest"
)

func TestConformance(t *testing.T) {
	castest.Run(t, func(t *testing.T, o cas.Options) castest.Store {
		s, err := cas.Open(t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}
