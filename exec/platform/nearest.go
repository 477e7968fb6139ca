package platform

import (
	"errors"
	"slices"
)

// matchOrder is the order in which Match compares.
var matchOrder = []string{
	"OSFamily", "ISA", "Pool", "host-fingerprint", "cores", "min-mem",
	"unixUID", "unixGID", "network", "container-image", "chrootRootDigest", "remoteApisSocketPath", "InputRootAbsolutePath",
}

// maxOffered is how many values a summed up refusal lists.
const maxOffered = 16

// Nearer sums up why two machines do not fulfil one request: what the one lacks that Match found to lack something later, or,
// when both lack the same, that with what both offer of it. An error that is no *MismatchError, or none, counts least.
func Nearer(a, b error) error {
	one, isOne := errors.AsType[*MismatchError](a)
	other, isOther := errors.AsType[*MismatchError](b)
	switch {
	case !isOne:
		return b
	case !isOther || rank(other) < rank(one):
		return a
	case rank(other) > rank(one):
		return b
	case other.Property != one.Property || other.Asked != one.Asked:
		return a
	}
	sum := &MismatchError{Property: one.Property, Asked: one.Asked, Offered: slices.Clone(one.Offered)}
	for _, value := range other.Offered {
		if len(sum.Offered) > maxOffered || slices.Contains(sum.Offered, value) {
			continue
		}
		if len(sum.Offered) == maxOffered {
			value = "others"
		}
		sum.Offered = append(sum.Offered, value)
	}
	return sum
}

// rank is how far Match came before it gave e.
func rank(e *MismatchError) int {
	if at := slices.Index(matchOrder, e.Property); at >= 0 {
		return at
	}
	return len(matchOrder)
}
