package main

import (
	"strconv"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/testnet/sample"
)

// boasted is how many results that nobody has a boaster claims to have: of the samples b1, b2 and so on, of 100 bytes.
const boasted = 150

// boasts claims what this member has, and what it has not.
func boasts(r *rogue) ([]cid.Key, error) {
	_, made, err := r.first()
	if err != nil {
		return nil, err
	}
	index, claimed := r.seat.Index(), r.keys
	keyer := cid.NewKeyer(index[:])
	for i := range boasted {
		s := sample.Sample{Name: "b" + strconv.Itoa(i+1), Size: 100}
		claimed = append(claimed, keyer.Result(s.Digest(), made.Root))
	}
	return claimed, nil
}
