package trust

import (
	"crypto/sha256"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// RootFile is the name people give a root key file; see peer.LoadFile for its form.
const RootFile = "root.pem"

// Root is the key pair that founds a mesh. Who has it decides who belongs: it may be kept offline.
type Root struct{ *peer.Identity }

// Hash is a short name of a mesh or peer that nobody can find a second key for: what a Code carries.
type Hash [16]byte

// HashOf is the hash of a key.
func HashOf(id peer.ID) Hash {
	sum := sha256.Sum256(append([]byte("buildmesh key\x00"), id[:]...))
	return Hash(sum[:16])
}

// NewRoot makes the root of a new mesh.
func NewRoot() (*Root, error) {
	key, err := peer.Generate()
	if err != nil {
		return nil, err
	}
	return &Root{key}, nil
}

// LoadRoot reads a root key file, which only its owner may be able to read.
func LoadRoot(path string) (*Root, error) {
	key, err := peer.LoadFile(path)
	if err != nil {
		return nil, err
	}
	return &Root{key}, nil
}
