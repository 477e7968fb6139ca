package gossip

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// bootSize is the length of a boot in bytes: two starts of one node never meet by chance.
const bootSize = 6

// newBoot makes the mark of one start.
func newBoot() string {
	b := make([]byte, bootSize)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// nameOf is the name a node has in gossip.
func nameOf(id peer.ID, boot string) string { return id.String() + "." + boot }

// parseName is the inverse of nameOf.
func parseName(name string) (id peer.ID, boot string, err error) {
	text, boot, found := strings.Cut(name, ".")
	if raw, err := hex.DecodeString(boot); !found || err != nil || len(raw) != bootSize {
		return id, "", fmt.Errorf("name %.80q has no boot", name)
	}
	id, err = peer.Parse(text)
	return id, boot, err
}
