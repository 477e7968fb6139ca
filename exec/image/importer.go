package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/dht/tree"
)

// Bounds of what describes an image.
const (
	maxManifest = 4 << 20
	maxConfig   = 8 << 20
	maxLayers   = 512
)

// importer is one import.
type importer struct {
	registry  Registry
	reference Reference
	blobs     Blobs
	options   Options
	root      *root
	files     *files
	bytes     int64 // left of Options.MaxBytes
}

// run brings the image in: its blobs are in the store and pinned by m.files until that is released.
func (m *importer) run(ctx context.Context) (*record, error) {
	manifest, err := m.manifest(ctx)
	if err != nil {
		return nil, err
	}
	config, err := m.config(ctx, manifest)
	if err != nil {
		return nil, err
	}
	m.root = &root{top: newDir(0), limit: m.options.MaxNodes}
	for i, layer := range manifest.Layers {
		m.root.layer = i + 1
		if err := m.unpack(ctx, layer, config.RootFS.DiffIDs[i]); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(manifest.Layers), err)
		}
	}
	if err := m.furnish(ctx); err != nil {
		return nil, err
	}
	return m.finish(ctx, config)
}

// manifest fetches the image's manifest, by way of an index when the pin is one.
func (m *importer) manifest(ctx context.Context) (*v1.Manifest, error) {
	hash := m.reference.Pin
	for range 3 { // an index may list indices
		data, err := m.registry.Manifest(ctx, m.reference, hash)
		if err != nil {
			return nil, err
		}
		if data, err = small(bytes.NewReader(data), hash, maxManifest); err != nil {
			return nil, err
		}
		var either struct {
			Manifests []v1.Descriptor `json:"manifests"`
			Layers    []v1.Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(data, &either); err != nil {
			return nil, fmt.Errorf("%w: manifest %s: %w", ErrCorrupt, hash, err)
		}
		if either.Manifests == nil {
			return m.image(data, hash)
		}
		if hash, err = choose(either.Manifests); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: its index is nested too deep", ErrCorrupt)
}

// image checks the manifest of one image.
func (m *importer) image(data []byte, hash v1.Hash) (*v1.Manifest, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrCorrupt, hash, err)
	}
	if manifest.Config.Digest.Hex == "" {
		return nil, fmt.Errorf("%w: manifest %s has no configuration (schema version %d)", ErrUnsuitable, hash, manifest.SchemaVersion)
	}
	if len(manifest.Layers) > maxLayers {
		return nil, fmt.Errorf("%w: it has %d layers, at most %d are taken", ErrTooLarge, len(manifest.Layers), maxLayers)
	}
	packed := int64(0)
	for _, layer := range manifest.Layers {
		if layer.Size < 0 || layer.Size > m.options.MaxBytes || packed > m.options.MaxBytes-layer.Size {
			return nil, fmt.Errorf("%w: its layers exceed %d bytes", ErrTooLarge, m.options.MaxBytes)
		}
		packed += layer.Size
	}
	return manifest, nil
}

// choose finds this machine's image in an index.
func choose(list []v1.Descriptor) (v1.Hash, error) {
	var have []string
	for _, d := range list {
		if d.Platform == nil {
			if len(list) == 1 {
				return d.Digest, nil
			}
			continue
		}
		if d.Platform.OS == "linux" && d.Platform.Architecture == runtime.GOARCH {
			return d.Digest, nil
		}
		have = append(have, d.Platform.OS+"/"+d.Platform.Architecture)
	}
	return v1.Hash{}, fmt.Errorf("%w: it has none for linux/%s, only %s", ErrUnsuitable, runtime.GOARCH, clip(strings.Join(have, ", ")))
}

// config fetches the image's configuration and compares it with the machine and the manifest.
func (m *importer) config(ctx context.Context, manifest *v1.Manifest) (*v1.ConfigFile, error) {
	hash := manifest.Config.Digest
	blob, err := m.registry.Blob(ctx, m.reference, hash)
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	data, err := small(&endless{ctx: ctx, from: blob}, hash, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: configuration %s: %w", ErrCorrupt, hash, err)
	}
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return nil, fmt.Errorf("%w: it is for %s/%s, this is linux/%s", ErrUnsuitable, clip(config.OS), clip(config.Architecture), runtime.GOARCH)
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, fmt.Errorf("%w: %d layers, but %d in its configuration", ErrCorrupt, len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	return config, nil
}

// mountPoints are empty directories of every root: the sandbox mounts its own there.
var mountPoints = []string{"build", "dev", "proc", "tmp"}

// hosts is what an image without a file of its own gets.
const hosts = "127.0.0.1 localhost\n::1 localhost\n"

// furnish adds to the root what every sandbox relies on.
func (m *importer) furnish(ctx context.Context) error {
	for _, name := range mountPoints {
		m.root.top.children[name] = newDir(m.root.layer)
	}
	if old := m.root.find([]string{"etc", "hosts"}); old != nil && !(old.kind == isFile && old.digest.IsEmpty()) {
		return nil
	}
	d, err := m.files.add(ctx, int64(len(hosts)), strings.NewReader(hosts))
	if err == nil {
		err = m.files.flush(ctx)
	}
	if err != nil {
		return err
	}
	return m.root.set([]string{"etc", "hosts"}, &node{kind: isFile, layer: m.root.layer, digest: d})
}

// finish stores the directories and puts the record together.
func (m *importer) finish(ctx context.Context, config *v1.ConfigFile) (*record, error) {
	b := tree.NewBuilder(digest.SHA256)
	sum, err := m.root.top.build(b, "")
	if err != nil {
		return nil, err
	}
	if _, err := b.Tree(sum, m.options.Trees); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	for d, data := range b.Blobs {
		if _, err := m.files.add(ctx, int64(len(data)), bytes.NewReader(data)); err != nil {
			return nil, fmt.Errorf("directory %s: %w", d.Short(), err)
		}
	}
	if err := m.files.flush(ctx); err != nil {
		return nil, err
	}
	r := &record{Format: recordFormat, Root: sum.Hex(), Size: sum.Size()}
	account, err := m.account(ctx, config.Config.User)
	if err != nil {
		return nil, err
	}
	r.UID, r.GID, r.Env = account.uid, account.gid, environment(config.Config.Env, account.home)
	return r, nil
}

// standardPath is what container runtimes give an image that sets no PATH.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the image's own, without what cannot be a variable, with PATH and HOME.
func environment(own []string, home string) []string {
	seen := map[string]bool{}
	var env []string
	add := func(name, value string) {
		if name != "" && !seen[name] && !strings.ContainsRune(name+value, 0) {
			seen[name] = true
			env = append(env, name+"="+value)
		}
	}
	for _, v := range own {
		name, value, _ := strings.Cut(v, "=")
		add(name, value)
	}
	add("PATH", standardPath)
	add("HOME", home)
	return env
}

// account is whom an image's commands run as.
type account struct {
	uid, gid uint32
	home     string
}

// account reads a configuration's user: "", "name", "7" or either with ":" and a group. Names are
// looked up in the image's own /etc/passwd and /etc/group.
func (m *importer) account(ctx context.Context, user string) (account, error) {
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "0"
	}
	a := account{home: "/"}
	line, err := m.lookup(ctx, "passwd", name, 7)
	if err != nil {
		return a, err
	}
	uid, gid := name, "0"
	if line != nil {
		uid, gid, a.home = line[2], line[3], line[5]
	}
	if hasGroup && group != "" {
		gid = group
		if line, err = m.lookup(ctx, "group", group, 4); err != nil {
			return a, err
		}
		if line != nil {
			gid = line[2]
		}
	}
	for _, id := range []struct {
		text string
		to   *uint32
	}{{uid, &a.uid}, {gid, &a.gid}} {
		n, err := strconv.ParseUint(id.text, 10, 31)
		if err != nil {
			return a, fmt.Errorf("%w: its user %q is not in its /etc/passwd", ErrUnsuitable, clip(user))
		}
		*id.to = uint32(n)
	}
	if !strings.HasPrefix(a.home, "/") {
		a.home = "/"
	}
	return a, nil
}

// maxAccounts bounds a file of accounts that is looked at.
const maxAccounts = 1 << 20

// lookup finds the line of a name or number in one of the image's files of accounts; nil for none.
func (m *importer) lookup(ctx context.Context, file, name string, fields int) ([]string, error) {
	n := m.root.find([]string{"etc", file})
	if n == nil || n.kind != isFile || n.digest.Size() > maxAccounts {
		return nil, nil
	}
	data, err := m.blobs.GetBatch(ctx, []digest.Digest{n.digest})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errStore, err)
	}
	for line := range strings.Lines(string(data[0])) {
		parts := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(parts) == fields && (parts[0] == name || parts[2] == name) {
			return parts, nil
		}
	}
	return nil, nil
}
