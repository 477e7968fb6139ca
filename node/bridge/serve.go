package bridge

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/archive"
	"github.com/buildmesh/buildmesh/node/reapi"
)

// TreePath is where ServeTree belongs.
const TreePath = "/tree/{name}"

// stall is how long a client of ServeTree may take for the next part of a tar.
const stall = 30 * time.Second

// ServeTree answers GET /tree/HASH-SIZE.tar with the tree as a tar, streamed. A connection that ends before
// the tar does is broken off, so that nobody takes a part for the whole.
func (o *Origin) ServeTree(w http.ResponseWriter, r *http.Request) {
	name, isTar := strings.CutSuffix(r.PathValue("name"), tarSuffix)
	if !isTar {
		http.Error(w, "want /tree/HASH-SIZE.tar", http.StatusNotFound)
		return
	}
	root, err := o.tree(r.Context(), name)
	var bad *reapi.FieldError
	switch {
	case errors.As(err, &bad):
		http.Error(w, bad.Reason, http.StatusBadRequest)
		return
	case errors.Is(err, ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("ETag", `"`+name+`"`)
	w.Header().Set("Content-Type", "application/x-tar")
	if r.Method == http.MethodHead {
		return
	}
	out := &patient{w: w, control: http.NewResponseController(w)}
	if err := archive.Write(r.Context(), out, o.options.Blobs, root); err != nil {
		if out.began {
			panic(http.ErrAbortHandler)
		}
		w.Header().Del("ETag")
		status := http.StatusInternalServerError
		if errors.Is(absent(err), ErrNotFound) {
			status = http.StatusNotFound
		}
		http.Error(w, err.Error(), status)
	}
}

// patient writes to a client that may take long over all, but not over one part.
type patient struct {
	w       io.Writer
	control *http.ResponseController
	began   bool
	next    time.Time // when the deadline is due to be moved
}

func (p *patient) Write(b []byte) (int, error) {
	p.began = true
	if now := time.Now(); now.After(p.next) {
		p.next = now.Add(stall / 10)
		if err := p.control.SetWriteDeadline(now.Add(stall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return 0, err
		}
	}
	return p.w.Write(b)
}
