package receipt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/mesh/peer"
	contentv1 "github.com/buildmesh/buildmesh/proto/content/v1"
)

var (
	// ErrInvalid is wrapped by every error about a receipt that is malformed, wrongly signed or about
	// something else.
	ErrInvalid = errors.New("invalid receipt")
	// ErrUntrusted means that a good receipt is of a peer that is not believed.
	ErrUntrusted = errors.New("receipt of a peer that is not trusted")
)

// domain is signed before a statement, so that no other signature of a peer passes for a receipt.
const domain = "buildmesh receipt 1\x00"

// MaxSize is the largest receipt in bytes.
const MaxSize = 2 << 20

// Statement is what a receipt says. The result must not be changed.
type Statement struct {
	Mesh      string // id of the mesh
	Action    digest.Digest
	Root      [32]byte // what the action could see besides its inputs
	Result    *repb.ActionResult
	Executor  peer.ID
	Tier      string // of the sandbox
	Platform  string // of the executor, for people
	Started   time.Time
	Completed time.Time
}

// Receipt is a statement with its executor's signature. It is immutable.
type Receipt struct {
	Statement
	raw []byte
	sum [sha256.Size]byte
}

// Signer signs for the executor.
type Signer interface {
	ID() peer.ID
	Sign(message []byte) []byte
}

// Sign makes the receipt of a statement; its executor becomes the signer.
func Sign(by Signer, s Statement) (*Receipt, error) {
	result, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Result)
	if err != nil {
		return nil, fmt.Errorf("sign result of action %s: %w", s.Action.Short(), err)
	}
	hash, id := s.Action.Hash(), by.ID()
	statement, err := proto.MarshalOptions{Deterministic: true}.Marshal(&contentv1.Statement{
		Mesh: s.Mesh, Function: uint32(s.Action.Function()), ActionHash: hash[:], ActionSize: s.Action.Size(),
		Root: s.Root[:], Result: result, Executor: id[:], Tier: s.Tier, Platform: s.Platform,
		StartedNanos: s.Started.UnixNano(), CompletedNanos: s.Completed.UnixNano(),
	})
	if err != nil {
		return nil, fmt.Errorf("sign result of action %s: %w", s.Action.Short(), err)
	}
	raw, err := proto.Marshal(&contentv1.Receipt{Statement: statement, Signature: by.Sign(append([]byte(domain), statement...))})
	if err != nil {
		return nil, fmt.Errorf("sign result of action %s: %w", s.Action.Short(), err)
	}
	return Parse(raw)
}

// Parse reads a receipt and verifies its signature. raw must not be changed any more. Errors: ErrInvalid.
func Parse(raw []byte) (*Receipt, error) {
	r, signed, err := read(raw)
	if err != nil {
		return nil, err
	}
	if !r.Executor.Verify(append([]byte(domain), signed.Statement...), signed.Signature) {
		return nil, fmt.Errorf("%w: the signature is not %s's", ErrInvalid, r.Executor.Short())
	}
	r.sum = outputs(r.Result)
	return r, nil
}

// Peek reads what a receipt says without verifying who says it: for receipts of this node's own store.
// Errors: ErrInvalid.
func Peek(raw []byte) (Statement, error) {
	r, _, err := read(raw)
	if err != nil {
		return Statement{}, err
	}
	return r.Statement, nil
}

// read decodes a receipt.
func read(raw []byte) (*Receipt, *contentv1.Receipt, error) {
	if len(raw) > MaxSize {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(raw))
	}
	var signed contentv1.Receipt
	var s contentv1.Statement
	if err := proto.Unmarshal(raw, &signed); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := proto.Unmarshal(signed.Statement, &s); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if s.Function > uint32(digest.BLAKE3) || len(s.ActionHash) != digest.HashSize || s.ActionSize < 0 ||
		len(s.Root) != len(Statement{}.Root) || len(s.Executor) != len(peer.ID{}) {
		return nil, nil, fmt.Errorf("%w: malformed statement", ErrInvalid)
	}
	result := &repb.ActionResult{}
	if err := proto.Unmarshal(s.Result, result); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	action := digest.New(digest.Function(s.Function), [digest.HashSize]byte(s.ActionHash), s.ActionSize)
	return &Receipt{raw: raw, Statement: Statement{
		Mesh: s.Mesh, Action: action, Root: [32]byte(s.Root), Result: result, Executor: peer.ID(s.Executor),
		Tier: s.Tier, Platform: s.Platform, Started: time.Unix(0, s.StartedNanos), Completed: time.Unix(0, s.CompletedNanos),
	}}, &signed, nil
}

// Raw is the exact bytes of the receipt.
func (r *Receipt) Raw() []byte { return r.raw }

// Check reports ErrInvalid unless the receipt is about an action under a root, in a mesh, and the action
// succeeded.
func (r *Receipt) Check(mesh string, action digest.Digest, root [32]byte) error {
	switch {
	case r.Mesh != mesh:
		return fmt.Errorf("%w: it is of mesh %.40q", ErrInvalid, r.Mesh)
	case r.Action != action:
		return fmt.Errorf("%w: it is about action %s", ErrInvalid, r.Action.Short())
	case r.Root != root:
		return fmt.Errorf("%w: it was made under another root", ErrInvalid)
	case r.Result.ExitCode != 0:
		return fmt.Errorf("%w: the action failed with exit code %d", ErrInvalid, r.Result.ExitCode)
	}
	return nil
}

// Agrees reports whether two receipts tell of the same outputs.
func (r *Receipt) Agrees(other *Receipt) bool { return r.sum == other.sum }

// outputs is a sum over what an action left behind, whatever the order it is told in.
func outputs(result *repb.ActionResult) [sha256.Size]byte {
	all := entries(result)
	h := sha256.New()
	var length [8]byte
	for _, path := range sortedPaths(all) {
		for _, s := range []string{path, all[path]} {
			binary.BigEndian.PutUint64(length[:], uint64(len(s)))
			h.Write(length[:])
			h.Write([]byte(s))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
