package lease

import (
	"errors"
	"fmt"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
	leasev1 "github.com/buildmesh/buildmesh/proto/lease/v1"
)

// errMalformed refuses a message that breaks the protocol.
var errMalformed = errors.New("malformed message")

// DigestProto is a digest as the messages of leases have it.
func DigestProto(d digest.Digest) *leasev1.Digest {
	hash := d.Hash()
	return &leasev1.Digest{Function: int32(d.Function().Proto()), Hash: hash[:], Size: d.Size()}
}

// digestFrom checks a digest of a peer. Errors wrap errMalformed.
func digestFrom(p *leasev1.Digest) (digest.Digest, error) {
	for _, f := range digest.Functions() {
		if p != nil && repb.DigestFunction_Value(p.Function) == f.Proto() && len(p.Hash) == digest.HashSize && p.Size >= 0 {
			return digest.New(f, [digest.HashSize]byte(p.Hash), p.Size), nil
		}
	}
	return digest.Digest{}, fmt.Errorf("digest: %w", errMalformed)
}

func claimProto(c Claim) *leasev1.Claim {
	return &leasev1.Claim{Lease: c.Lease[:], Attempt: c.Attempt, Epoch: c.Epoch}
}

func claimFrom(p *leasev1.Claim, caller peer.ID) (Claim, error) {
	if p == nil || len(p.Lease) != len(ID{}) {
		return Claim{}, fmt.Errorf("claim: %w", errMalformed)
	}
	return Claim{Lease: ID(p.Lease), Caller: caller, Attempt: p.Attempt, Epoch: p.Epoch}, nil
}

func requestProto(r Request) *leasev1.ReserveRequest {
	return &leasev1.ReserveRequest{
		Action: DigestProto(r.Action), Cores: r.Cores, MemoryBytes: r.MemoryBytes, Invocation: r.Invocation,
		Attempt: r.Attempt, Epoch: r.Epoch, Alone: r.Alone,
	}
}

func requestFrom(p *leasev1.ReserveRequest, caller peer.ID) (Request, error) {
	action, err := digestFrom(p.GetAction())
	if err != nil {
		return Request{}, err
	}
	return Request{
		Caller: caller, Action: action, Invocation: p.Invocation, Attempt: p.Attempt, Epoch: p.Epoch,
		Cores: p.Cores, MemoryBytes: p.MemoryBytes, Alone: p.Alone,
	}, nil
}

func answerProto(id ID, joined bool, refusal *Refusal) *leasev1.ReserveResponse {
	if refusal != nil {
		return &leasev1.ReserveResponse{Answer: &leasev1.ReserveResponse_Refused{Refused: &leasev1.Refused{
			Reason: refusal.Reason, FreeCores: refusal.FreeCores, FreeMemoryBytes: refusal.FreeBytes,
		}}}
	}
	return &leasev1.ReserveResponse{Answer: &leasev1.ReserveResponse_Granted{Granted: &leasev1.Granted{
		Lease: id[:], TtlMilliseconds: TTL.Milliseconds(), Joined: joined,
	}}}
}

// answerFrom reads a grant or a refusal. Errors wrap errMalformed.
func answerFrom(p *leasev1.ReserveResponse) (ID, *Refusal, error) {
	if r := p.GetRefused(); r != nil {
		return ID{}, &Refusal{Reason: r.Reason, FreeCores: r.FreeCores, FreeBytes: r.FreeMemoryBytes}, nil
	}
	g := p.GetGranted()
	if len(g.GetLease()) != len(ID{}) {
		return ID{}, nil, fmt.Errorf("answer to a reservation: %w", errMalformed)
	}
	return ID(g.Lease), nil, nil
}
