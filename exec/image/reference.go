package image

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// How a reference begins.
const (
	dockerScheme = "docker://"
	layoutScheme = "oci:"
)

// Reference is a parsed container-image property. Exactly one of Repository and Layout is set.
type Reference struct {
	Repository name.Repository // docker://
	Layout     string          // oci: the absolute path of an image layout directory
	Tag        string          // as given, "" for none; it means nothing beside a Pin
	Pin        v1.Hash         // of the manifest or index; zero when the reference floats
}

// Parse reads docker://registry/repository@sha256:..., or oci:/directory@sha256:... . A tag may stand
// before the @. Without a pin it is valid all the same: Reference.Pinned tells. Errors wrap ErrReference.
func Parse(text string) (Reference, error) {
	rest, isDocker := strings.CutPrefix(text, dockerScheme)
	if !isDocker {
		var isLayout bool
		if rest, isLayout = strings.CutPrefix(text, layoutScheme); !isLayout {
			return Reference{}, fmt.Errorf("%w: write docker://REGISTRY/NAME@sha256:HEX or oci:/DIRECTORY@sha256:HEX", ErrReference)
		}
	}
	var r Reference
	place, pin, pinned := strings.Cut(rest, "@")
	if pinned {
		hash, err := v1.NewHash(pin)
		if err != nil || hash.Algorithm != "sha256" || hash.Hex != strings.ToLower(hash.Hex) {
			return Reference{}, fmt.Errorf("%w: %q is no digest like sha256: and 64 hexadecimal digits", ErrReference, pin)
		}
		r.Pin = hash
	}
	if isDocker {
		return r.docker(place)
	}
	return r.layout(place)
}

func (r Reference) docker(place string) (Reference, error) {
	tag, err := name.NewTag(place)
	if err != nil {
		return Reference{}, fmt.Errorf("%w: %v", ErrReference, err)
	}
	r.Repository = tag.Repository
	if r.Tag = tag.TagStr(); !strings.HasSuffix(place, ":"+r.Tag) {
		r.Tag = ""
	}
	return r, nil
}

func (r Reference) layout(place string) (Reference, error) {
	// A tag after the directory is what skopeo and others write.
	if at := strings.LastIndex(place, ":"); at > strings.LastIndex(place, "/") {
		place, r.Tag = place[:at], place[at+1:]
	}
	if !filepath.IsAbs(place) || filepath.Clean(place) != filepath.FromSlash(place) || strings.ContainsRune(place, 0) {
		return Reference{}, fmt.Errorf("%w: %q is no clean absolute path of an OCI layout", ErrReference, place)
	}
	r.Layout = place
	return r, nil
}

// Pinned reports whether the reference names one image forever.
func (r Reference) Pinned() bool { return r.Pin != v1.Hash{} }

// At is the reference pinned to hash, as a property is written.
func (r Reference) At(hash v1.Hash) string {
	if r.Layout != "" {
		return layoutScheme + r.Layout + "@" + hash.String()
	}
	return dockerScheme + r.Repository.Name() + "@" + hash.String()
}
