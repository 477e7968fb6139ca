package platform

import (
	"slices"
	"strconv"
)

// Offer is what one machine has. The zero value of a field offers nothing of it, except that
// MemoryBytes 0 means that the amount is not known and is not compared.
type Offer struct {
	OSFamily    string   // as in the lexicon: linux, macos, windows, ...
	ISA         []string // architecture, its levels and extensions
	Cores       float64
	MemoryBytes int64
	Fingerprint string   // of what the sandbox shows of the machine; "" when unknown
	Pools       []string // names this machine answers to

	UserIDs    bool // runs actions under the user and group they ask for
	Network    bool // the owner allows actions a network when they ask for it
	APISocket  bool // gives actions a socket that speaks the remote APIs
	ChrootRoot bool // lays the input root over the root that chrootRootDigest names
	WholeRoot  bool // runs an action whose input root is the root file system
	Images     bool // runs actions in container images
}

// Match reports nil when o fulfils r, else a *MismatchError that names the first property it does not.
func (r Request) Match(o Offer) error {
	if r.OSFamily != "" && r.OSFamily != o.OSFamily {
		return mismatch("OSFamily", r.OSFamily, o.OSFamily)
	}
	for _, isa := range r.ISA {
		if !slices.Contains(o.ISA, isa) {
			return mismatch("ISA", isa, o.ISA...)
		}
	}
	if r.Pool != "" && !slices.Contains(o.Pools, r.Pool) {
		return mismatch("Pool", r.Pool, o.Pools...)
	}
	if r.Fingerprint != "" && r.Fingerprint != o.Fingerprint {
		return mismatch("host-fingerprint", r.Fingerprint, o.Fingerprint)
	}
	if r.Cores > o.Cores {
		return mismatch("cores", formatCores(r.Cores), formatCores(o.Cores))
	}
	if o.MemoryBytes > 0 && r.MemoryBytes > o.MemoryBytes {
		return mismatch("min-mem", strconv.FormatInt(r.MemoryBytes, 10), strconv.FormatInt(o.MemoryBytes, 10))
	}
	return r.matchSetup(o)
}

// matchSetup compares the interpreted properties: can this machine set the action up as it asks?
func (r Request) matchSetup(o Offer) error {
	if r.UID != nil && !o.UserIDs {
		return mismatch("unixUID", strconv.FormatUint(uint64(*r.UID), 10))
	}
	if r.GID != nil && !o.UserIDs {
		return mismatch("unixGID", strconv.FormatUint(uint64(*r.GID), 10))
	}
	if r.Network && !o.Network {
		return mismatch("network", "on", "off")
	}
	if r.ContainerImage != "" && !o.Images {
		return mismatch("container-image", r.ContainerImage)
	}
	if r.ChrootRoot != "" && !o.ChrootRoot {
		return mismatch("chrootRootDigest", r.ChrootRoot)
	}
	if r.RemoteAPIsSocket != "" && !o.APISocket {
		return mismatch("remoteApisSocketPath", r.RemoteAPIsSocket)
	}
	switch r.InputRoot {
	case "", InputRootHost:
	case InputRootWhole:
		if !o.WholeRoot {
			return mismatch("InputRootAbsolutePath", r.InputRoot, InputRootHost)
		}
	default:
		return mismatch("InputRootAbsolutePath", r.InputRoot, InputRootHost)
	}
	return nil
}

func mismatch(property, asked string, offered ...string) error {
	if len(offered) == 1 && offered[0] == "" {
		offered = nil
	}
	return &MismatchError{Property: property, Asked: asked, Offered: offered}
}

func formatCores(cores float64) string { return strconv.FormatFloat(cores, 'f', -1, 64) }
