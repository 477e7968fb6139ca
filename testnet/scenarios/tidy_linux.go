package scenarios

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/buildmesh/buildmesh/mesh/peer"
	"github.com/buildmesh/buildmesh/mesh/trust"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/buildmesh/buildmesh/testnet/lab"
)

// codeForm is a join code.
var codeForm = regexp.MustCompile(`\bbm[0-9a-hjkmnp-tv-z]{60,}\b`)

// peerList is peers with commas between.
var peerList = regexp.MustCompile(`PEER-[a-z0-9-]+(, PEER-[a-z0-9-]+)+`)

// What differs from run to run and the word printed instead, in this order.
var changing = []struct {
	form *regexp.Regexp
	word string
}{
	{codeForm, "CODE"},
	{regexp.MustCompile(`12D3KooW\w+`), "PEER"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?( ?[A-Z]{1,5}\b|[+-]\d\d:\d\d)?`), "DATE"},
	{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d\d:\d\d\b`), "DATE"},
	{regexp.MustCompile(`\bpid \d+`), "pid N"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|KiB|MiB|GiB|TiB)\b`), "SIZE"},
	{regexp.MustCompile(`\b(\d+(\.\d+)? ?(ns|us|µs|ms|s|min|m|h|d)\b ?)+`), "TIME "},
	{regexp.MustCompile(`  +`), "  "},
}

// tidy makes what a verb printed the same in every run.
func (w *World) tidy(ctx context.Context, out string) []string {
	out = strings.NewReplacer(w.personal(ctx)...).Replace(out)
	out = peerList.ReplaceAllStringFunc(out, func(list string) string {
		peers := strings.Split(list, ", ")
		slices.Sort(peers) // their ids were in order, by chance
		return strings.Join(peers, ", ")
	})
	var lines []string
	for line := range strings.Lines(strings.TrimRight(out, "\n")) {
		line = strings.TrimRight(line, "\n")
		for _, c := range changing {
			line = c.form.ReplaceAllString(line, c.word)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// personal is what nodes are called by chance, peer ids and the words that two nodes show, each followed by a name.
func (w *World) personal(ctx context.Context) []string {
	var names []string
	var known []*lab.Node
	for _, n := range w.Lab.Nodes() {
		if id := w.id(ctx, n); id != "" {
			known = append(known, n)
			names = append(names, id, "PEER-"+n.Name, id[len(id)-short:], "PEER-"+n.Name)
		}
	}
	for i, a := range known {
		root := w.root(ctx, a)
		for _, b := range known[:i] {
			if root != "" {
				names = append(names, phrase(root, w.ids[a.Name], w.ids[b.Name]), "WORDS-OF-"+b.Name+"-AND-"+a.Name)
			}
		}
	}
	return names
}

// short is how many of a peer id's last letters people are shown.
const short = 8

// root is the identity of the mesh a node is in now; empty when it does not say.
func (w *World) root(ctx context.Context, n *lab.Node) string {
	if !n.Running() || n.Asleep() {
		return ""
	}
	client, err := n.Control(ctx)
	if err != nil {
		return ""
	}
	defer client.Close()
	answer, err := client.Mesh.Members(ctx, &controlv1.MembersRequest{})
	if err != nil {
		return ""
	}
	return answer.Root
}

// phrase is the words that two nodes of a mesh show for each other.
func phrase(root, a, b string) string {
	var ids [3]peer.ID
	for i, text := range []string{root, a, b} {
		id, err := peer.Parse(text)
		if err != nil {
			return text
		}
		ids[i] = id
	}
	return trust.Phrase(ids[0], ids[1], ids[2])
}

// id is the peer id of a node, remembered from when it ran last; empty before that.
func (w *World) id(ctx context.Context, n *lab.Node) string {
	if w.ids[n.Name] == "" && n.Running() && !n.Asleep() {
		if status, err := n.Status(ctx); err == nil {
			w.ids[n.Name] = status.PeerId
		}
	}
	return w.ids[n.Name]
}

// codeIn finds the join code in what invite printed.
func codeIn(out string) (string, error) {
	code := codeForm.FindString(out)
	if code == "" {
		return "", fmt.Errorf("no code in %q", out)
	}
	return code, nil
}
