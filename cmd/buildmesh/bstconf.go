package main

import (
	"fmt"

	"github.com/buildmesh/buildmesh/node/clientconf"
)

// bstconfVerb is `buildmesh bstconf`.
type bstconfVerb struct {
	Instance string `default:"bst" help:"REAPI instance name (default: bst)."`
}

// Run prints part of a buildstream.conf.
func (b *bstconfVerb) Run(v *verbContext) error {
	e, err := v.endpoint()
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(v.out, clientconf.BuildStream(e, b.Instance))
	return err
}
