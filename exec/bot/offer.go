package bot

import (
	"slices"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"

	"github.com/buildmesh/buildmesh/dht/digest"
	"github.com/buildmesh/buildmesh/exec/action"
	"github.com/buildmesh/buildmesh/exec/platform"
)

// Property is one thing a bot reports; a name may repeat.
type Property struct{ Name, Value string }

// offer is a bot's properties in the form actions are compared with. Values that mean nothing to us, and
// names, are left out: no action can ask for them here.
type offer struct {
	platform platform.Offer
	osFamily []string
	users    map[string][]string // unixUID, unixGID: the values reported
	images   []string            // container-image, as reported
	chroots  []string
	whole    bool // takes actions whose input root is the root file system
	beside   bool // takes actions that count on the machine's tools
}

// newOffer reads the properties a bot reports.
func newOffer(properties []Property) offer {
	o := offer{users: map[string][]string{}, whole: true}
	o.platform.Cores = 1 << 20 // what a bot does not limit, it does not limit
	for _, p := range properties {
		switch p.Name {
		case "InputRootAbsolutePath":
			if p.Value != platform.InputRootWhole {
				o.beside = true
			}
			continue
		case "container-image":
			o.images = append(o.images, p.Value)
			continue
		case "chrootRootDigest":
			o.chroots = append(o.chroots, p.Value)
			continue
		}
		r, err := platform.Parse(&repb.Platform{Properties: []*repb.Platform_Property{{Name: p.Name, Value: p.Value}}})
		if err != nil {
			continue
		}
		o.take(p, r)
	}
	if o.beside { // one runner is of one kind; "/" beside another value says that it is both
		o.whole = slices.Contains(properties, Property{"InputRootAbsolutePath", platform.InputRootWhole})
	}
	return o
}

// take adds one parsed property.
func (o *offer) take(p Property, r platform.Request) {
	switch {
	case r.OSFamily != "":
		o.osFamily = append(o.osFamily, r.OSFamily)
	case r.Pool != "":
		o.platform.Pools = append(o.platform.Pools, r.Pool)
	case r.Fingerprint != "":
		o.platform.Fingerprint = r.Fingerprint
	case r.Cores > 0:
		o.platform.Cores = r.Cores
	case r.MemoryBytes > 0:
		o.platform.MemoryBytes = r.MemoryBytes
	case r.UID != nil, r.GID != nil:
		o.users[p.Name] = append(o.users[p.Name], p.Value)
	case r.Network:
		o.platform.Network = true
	case r.RemoteAPIsSocket != "":
		o.platform.APISocket = true
	}
	o.platform.ISA = append(o.platform.ISA, r.ISA...)
}

// takes reports whether a bot with this offer may have an action.
func (o *offer) takes(a *action.Action) bool {
	if a.Digest.Function() != digest.SHA256 || a.Platform.Local {
		return false
	}
	if a.WholeRoot && !o.whole || !a.WholeRoot && a.Platform.ContainerImage == "" && !o.beside {
		return false
	}
	r, have := a.Platform, o.platform
	if r.OSFamily != "" && !slices.Contains(o.osFamily, r.OSFamily) {
		return false
	}
	if r.ContainerImage != "" && !slices.Contains(o.images, r.ContainerImage) ||
		r.ChrootRoot != "" && len(o.chroots) > 0 && !slices.Contains(o.chroots, r.ChrootRoot) {
		return false
	}
	if r.UID != nil && !o.user("unixUID", *r.UID) || r.GID != nil && !o.user("unixGID", *r.GID) {
		return false
	}
	// What was compared here already is offered to the rest of the comparison as asked.
	have.OSFamily, have.UserIDs, have.Images, have.ChrootRoot, have.WholeRoot = r.OSFamily, true, true, true, true
	if r.InputRoot != platform.InputRootWhole {
		r.InputRoot = ""
	}
	return r.Match(have) == nil
}

// user reports whether a bot runs actions as a user or group. One that reports none takes all.
func (o *offer) user(name string, id uint32) bool {
	values := o.users[name]
	return len(values) == 0 || slices.Contains(values, strconv.FormatUint(uint64(id), 10))
}
