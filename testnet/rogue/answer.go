package main

import (
	"errors"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/cid"
	"github.com/buildmesh/buildmesh/dht/receipt"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

// signs has a rogue answer with receipts of its own about what it has changed.
func signs(change func(*rogue, *receipt.Statement) error) func(*rogue, cid.Key, *contentv1.Answer) error {
	return func(r *rogue, _ cid.Key, a *contentv1.Answer) error {
		for i, raw := range a.Receipts {
			s, err := receipt.Peek(raw)
			if err != nil {
				return err
			}
			s.Result = proto.Clone(s.Result).(*repb.ActionResult)
			if err := change(r, &s); err != nil {
				return err
			}
			signed, err := receipt.Sign(r.identity, s)
			if err != nil {
				return err
			}
			a.Receipts[i] = signed.Raw()
		}
		return nil
	}
}

// first is the first result that this member's node had a receipt of.
func (r *rogue) first() (raw []byte, made receipt.Statement, err error) {
	if len(r.keys) == 0 {
		return nil, made, errors.New("this member has built nothing, and cannot know under which key results are kept")
	}
	all, err := r.receipts.Raw(r.keys[:1])
	if err != nil {
		return nil, made, err
	}
	made, err = receipt.Peek(all[0][0])
	return all[0][0], made, err
}

// replay answers with the receipts of another action.
func replay(r *rogue, asked cid.Key, a *contentv1.Answer) error {
	for _, k := range r.keys {
		if k == asked {
			continue
		}
		raw, err := r.receipts.Raw([]cid.Key{k})
		if err != nil {
			return err
		}
		a.Receipts = raw[0]
		return nil
	}
	return errors.New("there is no other receipt to show")
}
