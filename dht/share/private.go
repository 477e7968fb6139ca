package share

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// maxPrivate is how many private blobs are remembered; beyond it nothing at all is shared, which is safe.
const maxPrivate = 1 << 21

// Private is what is not shared: results of some instances, outputs with some names, and the blobs of
// both. Safe for concurrent use.
type Private struct {
	instances map[string]bool // that are shared; empty: all
	patterns  []string

	mu    sync.RWMutex // guards everything below
	blobs map[digest.Digest]struct{}
	full  bool
}

// NewPrivate makes the rule: only results of the instances named are shared (none named: of all), and
// none with an output whose path or any folder of it matches one of the patterns, as path.Match does.
func NewPrivate(instances, patterns []string) (*Private, error) {
	p := &Private{instances: map[string]bool{}, patterns: patterns, blobs: map[digest.Digest]struct{}{}}
	for _, i := range instances {
		p.instances[i] = true
	}
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	return p, nil
}

// Instance reports whether what an instance does is private.
func (p *Private) Instance(name string) bool { return len(p.instances) > 0 && !p.instances[name] }

// Path reports whether an output's path makes its action private.
func (p *Private) Path(name string) bool {
	segments := strings.Split(strings.Trim(name, "/"), "/")
	return slices.ContainsFunc(p.patterns, func(pattern string) bool {
		if whole, _ := path.Match(pattern, name); whole {
			return true
		}
		return slices.ContainsFunc(segments, func(s string) bool {
			part, _ := path.Match(pattern, s)
			return part
		})
	})
}

// Hide makes blobs private until the process ends. A blob that is shared for another reason is hidden too.
func (p *Private) Hide(ds []digest.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		if p.full = p.full || len(p.blobs) >= maxPrivate; p.full {
			return
		}
		if !d.IsEmpty() {
			p.blobs[d] = struct{}{}
		}
	}
}

// Has reports whether a blob is private.
func (p *Private) Has(d digest.Digest) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.full {
		return true
	}
	_, is := p.blobs[d]
	return is
}
