package chaos

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/exec/journal"
	journalv1 "github.com/buildmesh/buildmesh/proto/journal/v1"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

// crossing counts the actions that a node's clients have asked for.
type crossing struct {
	actions int // that were run
	crossed int // that another member gave a lease for
	vain    int // of these, those whose result came from no member: the lease was lost, or a copy at home was faster
}

// since is what has come since an earlier count.
func (c crossing) since(earlier crossing) crossing {
	return crossing{c.actions - earlier.actions, c.crossed - earlier.crossed, c.vain - earlier.vain}
}

// asked reads the node's journal.
func asked(t *testing.T, n *lab.Node) (c crossing) {
	t.Helper()
	err := journal.Read(filepath.Join(n.Dir(), "cache", "journal"), func(e *journalv1.Entry) {
		if e.Placing == nil {
			return
		}
		c.actions++
		var away, brought bool
		for _, a := range e.Placing.Attempts {
			leased := slices.ContainsFunc(a.Events, func(e *journalv1.Event) bool { return strings.HasPrefix(e.What, "leased") })
			away = away || leased && !a.Self
			brought = brought || a.Won && !a.Self
		}
		if away {
			c.crossed++
		}
		if away && !brought {
			c.vain++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
