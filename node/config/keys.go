package config

import (
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EnvPrefix starts the name of every environment variable that sets a key.
const EnvPrefix = "BUILDMESH_"

// Key is one setting.
type Key struct {
	Name    string // section.name, as in the file
	Default string // as one would write it; may be empty
	Doc     string // one sentence; unit and bounds included
	Min     int64  // smallest value of a number, size (bytes) or duration (nanoseconds)
	Max     int64  // largest; 0 means no bound
	Choices []string

	at func(*Config) any // the field: *string, *int, *bool, *Size or *time.Duration
}

// Env is the environment variable that sets the key.
func (k Key) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))
}

// Keys lists every key in the order people read them.
func Keys() []Key {
	return slices.Concat(nodeKeys(), storeKeys(), execKeys(), assetKeys(), meshKeys(), lendKeys())
}

func nodeKeys() []Key {
	return []Key{
		{Name: "node.name", Doc: "name shown to people; empty: the machine's host name",
			at: func(c *Config) any { return &c.Node.Name }},
		{Name: "node.drain", Default: "30s", Max: int64(time.Hour),
			Doc: "how long a shutdown waits for running actions; 0 to 1h",
			at:  func(c *Config) any { return &c.Node.Drain }},
		{Name: "dir.base", Doc: "keep everything in this directory instead of the XDG directories",
			at: func(c *Config) any { return &c.Dir.Base }},
		{Name: "dir.state", Doc: "identity of the node; empty: $XDG_STATE_HOME/buildmesh",
			at: func(c *Config) any { return &c.Dir.State }},
		{Name: "dir.cache", Doc: "blobs, action results, staged trees; empty: $XDG_CACHE_HOME/buildmesh",
			at: func(c *Config) any { return &c.Dir.Cache }},
		{Name: "dir.runtime", Doc: "unix sockets; empty: $XDG_RUNTIME_DIR/buildmesh, else run in dir.state",
			at: func(c *Config) any { return &c.Dir.Runtime }},
		{Name: "listen.grpc", Default: "127.0.0.1:8980",
			Doc: "Remote Execution endpoint, host:port on loopback, since it asks for no password; off: none",
			at:  func(c *Config) any { return &c.Listen.GRPC }},
		{Name: "listen.socket", Doc: "Remote Execution on a unix socket; empty: buildmesh.sock in dir.runtime; off: none",
			at: func(c *Config) any { return &c.Listen.Socket }},
		{Name: "listen.web", Default: "127.0.0.1:8981",
			Doc: "metrics, health and the status page, host:port on loopback; off: none",
			at:  func(c *Config) any { return &c.Listen.Web }},
		{Name: "listen.mesh", Default: "0.0.0.0:8982",
			Doc: "members of the mesh, ip:port over TCP; who has no certificate gets no word; when the default is taken, another port is used",
			at:  func(c *Config) any { return &c.Listen.Mesh }},
		{Name: "listen.gossip", Default: "0.0.0.0:8983",
			Doc: "gossip with members, ip:port over UDP and TCP, encrypted; when the default is taken, another port is used",
			at:  func(c *Config) any { return &c.Listen.Gossip }},
		{Name: "listen.quic", Default: "off", Doc: "members far away, ip:port over UDP (QUIC), beside TCP; off: none",
			at: func(c *Config) any { return &c.Listen.QUIC }},
		{Name: "log.level", Default: "info", Choices: []string{"debug", "info", "warn", "error"},
			Doc: "least level logged: debug, info, warn, error",
			at:  func(c *Config) any { return &c.Log.Level }},
		{Name: "log.format", Default: "text", Choices: []string{"text", "json"}, Doc: "form of the log: text, json",
			at: func(c *Config) any { return &c.Log.Format }},
	}
}

func meshKeys() []Key {
	return []Key{
		{Name: "mesh.enabled", Default: "true", Doc: "take part in a mesh; false: this node stands alone and listens on loopback only",
			at: func(c *Config) any { return &c.Mesh.Enabled }},
		{Name: "mesh.discover", Default: "true", Doc: "tell of this node on the local network and listen for others (multicast)",
			at: func(c *Config) any { return &c.Mesh.Discover }},
		{Name: "mesh.networks", Doc: "networks whose interfaces are used for the mesh, such as 10.1.0.0/16, with commas between; empty: all",
			at: func(c *Config) any { return &c.Mesh.Networks }},
		{Name: "mesh.peers", Doc: "gossip addresses of members to try always, ip:port with commas between",
			at: func(c *Config) any { return &c.Mesh.Peers }},
		{Name: "mesh.trust", Default: "mesh",
			Doc: "whose action results are believed: self (this node's own), mesh (any member's), quorum K (K members that agree, 2 to 16); with self and quorum, actions run on this machine only",
			at:  func(c *Config) any { return &c.Mesh.Trust }},
		{Name: "mesh.instances", Doc: "REAPI instance names, with commas between, that are shared (\"\" is the empty one); empty: all",
			at: func(c *Config) any { return &c.Mesh.Instances }},
		{Name: "mesh.no_share", Doc: "patterns of paths of inputs and outputs, such as *.key, and instances, as instance:NAME, with commas between: actions that have such are not shared, nor are their blobs",
			at: func(c *Config) any { return &c.Mesh.NoShare }},
		{Name: "mesh.locator", Default: "auto", Choices: []string{"auto", "summary", "onehop", "kad"},
			Doc: "how results are found: summary (everybody has everybody's filter), onehop (an index spread over the members), kad (kad-dht, large blobs too), auto (summary up to 64 members, at one of several sites up to 250; else onehop up to 1000; else kad)",
			at:  func(c *Config) any { return &c.Mesh.Locator }},
		{Name: "mesh.audit", Default: "1.5",
			Doc: "percent of the results of members, made for this machine or found at them, that are made again here when it has nothing else to do, to compare them; three times as many of those first met less than a day ago; 0 to 100",
			at:  func(c *Config) any { return &c.Mesh.Audit }},
		{Name: "mesh.upload", Default: "0", Doc: "bytes a second sent to other members; 0: no bound",
			at: func(c *Config) any { return &c.Mesh.Upload }},
		{Name: "mesh.download", Default: "0", Doc: "bytes a second fetched from other members; 0: no bound",
			at: func(c *Config) any { return &c.Mesh.Download }},
		{Name: "mesh.site", Doc: "where this node stands, such as berlin; members of one site are near each other; at most 16 bytes",
			at: func(c *Config) any { return &c.Mesh.Site }},
	}
}

func storeKeys() []Key {
	return []Key{
		{Name: "store.max_size", Default: "0", Min: 64 << 20,
			Doc: "disk the blobs may take before the least recently used go; at least 64MiB; 0: 50GiB, and at most half of the free disk",
			at:  func(c *Config) any { return &c.Store.MaxSize }},
		{Name: "store.min_free", Default: "0",
			Doc: "disk always left free for others; 0: 2GiB, and at most a twentieth of the disk",
			at:  func(c *Config) any { return &c.Store.MinFree }},
		{Name: "store.max_blob", Default: "0", Min: 4 << 20,
			Doc: "largest blob accepted; at least 4MiB; 0: as large as the store",
			at:  func(c *Config) any { return &c.Store.MaxBlob }},
		{Name: "store.lease", Default: "10m", Min: int64(time.Second), Max: int64(24 * time.Hour),
			Doc: "how long a blob a client was told of is kept from eviction; 1s to 24h",
			at:  func(c *Config) any { return &c.Store.Lease }},
		{Name: "store.results_size", Default: "1GiB", Min: 1 << 20,
			Doc: "disk the action results may take before the least recently used go; at least 1MiB",
			at:  func(c *Config) any { return &c.Store.ResultsSize }},
		{Name: "store.replicas", Default: "2", Min: 1, Max: 8,
			Doc: "how many members hold what this node has built, itself counted, so that it may leave; 1: it alone; at most 8",
			at:  func(c *Config) any { return &c.Store.Replicas }},
		{Name: "store.replica_rate", Default: "16MiB",
			Doc: "bytes a second fetched to hold what others have built; 0: no bound",
			at:  func(c *Config) any { return &c.Store.ReplicaRate }},
	}
}

func execKeys() []Key {
	return []Key{
		{Name: "exec.enabled", Default: "true", Doc: "run actions; false: a cache only",
			at: func(c *Config) any { return &c.Exec.Enabled }},
		{Name: "exec.cores", Default: "0", Max: 4096, Doc: "cores lent to actions; 0: all of them",
			at: func(c *Config) any { return &c.Exec.Cores }},
		{Name: "exec.memory", Default: "0", Doc: "memory lent to all actions together; 0: four fifths of the machine's",
			at: func(c *Config) any { return &c.Exec.Memory }},
		{Name: "exec.network", Default: "false", Doc: "let actions that ask for it (network=on) reach the network",
			at: func(c *Config) any { return &c.Exec.Network }},
		{Name: "exec.default_timeout", Default: "6h", Min: int64(time.Second), Max: int64(7 * 24 * time.Hour),
			Doc: "wall time of an action that asks for no timeout; 1s to 168h",
			at:  func(c *Config) any { return &c.Exec.DefaultTimeout }},
		{Name: "exec.max_timeout", Default: "24h", Min: int64(time.Second), Max: int64(7 * 24 * time.Hour),
			Doc: "longest timeout an action may ask for; 1s to 168h",
			at:  func(c *Config) any { return &c.Exec.MaxTimeout }},
		{Name: "exec.max_disk", Default: "20GiB", Min: 1 << 20, Doc: "disk one action may write; at least 1MiB",
			at: func(c *Config) any { return &c.Exec.MaxDisk }},
		{Name: "exec.max_output", Default: "64MiB", Min: 64 << 10, Max: 1 << 40,
			Doc: "what one action may write to each of stdout and stderr; 64KiB to 1TiB",
			at:  func(c *Config) any { return &c.Exec.MaxOutput }},
		{Name: "exec.max_pids", Default: "4096", Min: 16, Max: 1 << 22, Doc: "processes and threads of one action; 16 to 4194304",
			at: func(c *Config) any { return &c.Exec.MaxPids }},
		{Name: "exec.root_instances", Default: "bst",
			Doc: "REAPI instance names, with commas between, whose input roots are whole root file systems",
			at:  func(c *Config) any { return &c.Exec.RootInstances }},
		{Name: "exec.stage_size", Default: "20GiB", Min: 16 << 20,
			Doc: "disk the staged input trees may take; at least 16MiB",
			at:  func(c *Config) any { return &c.Exec.StageSize }},
		{Name: "exec.pools", Default: "default", Doc: "names this machine answers to when an action asks for a Pool, with commas between",
			at: func(c *Config) any { return &c.Exec.Pools }},
		{Name: "exec.pretend",
			Doc: "for experiments: what this node says of its machine instead of the truth, as OSFamily=x, ISA=x, host-fingerprint=x with commas between",
			at:  func(c *Config) any { return &c.Exec.Pretend }},
		{Name: "exec.images", Default: "true", Doc: "run actions in the container images they pin by digest (container-image); false: refuse them",
			at: func(c *Config) any { return &c.Exec.Images }},
		{Name: "exec.image_registries",
			Doc: "registries, as host or host:port with commas between, that images may come from, at private addresses too; empty: any at a public address",
			at:  func(c *Config) any { return &c.Exec.ImageRegistries }},
		{Name: "exec.image_size", Default: "20GiB", Min: 1 << 20, Doc: "largest container image, unpacked; at least 1MiB",
			at: func(c *Config) any { return &c.Exec.ImageSize }},
		{Name: "exec.bots", Default: "false",
			Doc: "let bots of the Remote Workers API (buildbox-worker) take actions; whoever reaches the endpoint can then make results up",
			at:  func(c *Config) any { return &c.Exec.Bots }},
	}
}

func assetKeys() []Key {
	return []Key{
		{Name: "asset.download", Default: "true", Doc: "download http and https URIs for clients that ask (Bazel's remote downloader)",
			at: func(c *Config) any { return &c.Asset.Download }},
		{Name: "asset.allow", Doc: "addresses that are no public ones and may be downloaded from all the same, such as 10.1.0.0/16, with commas between",
			at: func(c *Config) any { return &c.Asset.Allow }},
	}
}

// set parses text into the key's field, within its bounds.
func (k Key) set(c *Config, text string) error {
	var err error
	switch field := k.at(c).(type) {
	case *string:
		if len(k.Choices) > 0 && !slices.Contains(k.Choices, text) {
			return fmt.Errorf("%q is none of %s", text, strings.Join(k.Choices, ", "))
		}
		*field = text
	case *bool:
		if *field, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case *int:
		if *field, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		return k.bound(int64(*field))
	case *Size:
		if *field, err = ParseSize(text); err != nil {
			return err
		}
		return k.bound(int64(*field))
	case *time.Duration:
		if *field, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%q is not a duration like 90s, 10m or 6h", text)
		}
		return k.bound(int64(*field))
	case *[]netip.Prefix:
		*field, err = parsePrefixes(text)
		return err
	}
	return nil
}

// parsePrefixes reads networks and addresses with commas between.
func parsePrefixes(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		prefix, err := netip.ParsePrefix(part)
		if err != nil {
			address, err := netip.ParseAddr(part)
			if err != nil {
				return nil, fmt.Errorf("%q is neither an address nor a network like 10.1.0.0/16", part)
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		out = append(out, prefix)
	}
	return out, nil
}

// bound checks a number against the key's bounds.
func (k Key) bound(n int64) error {
	most := k.Max
	if most == 0 {
		most = math.MaxInt64
	}
	if n >= k.Min && n <= most || n == 0 && k.Default == "0" { // 0 stands for a choice of the node's own
		return nil
	}
	if k.Max == 0 {
		return fmt.Errorf("%s is too small: at least %s", k.text(n), k.text(k.Min))
	}
	return fmt.Errorf("%s is out of bounds: %s to %s", k.text(n), k.text(k.Min), k.text(k.Max))
}

// text writes a number in the unit of the key.
func (k Key) text(n int64) string {
	switch k.at(&Config{}).(type) {
	case *Size:
		return Size(n).String()
	case *time.Duration:
		return shortDuration(time.Duration(n))
	default:
		return strconv.FormatInt(n, 10)
	}
}

// Value is the key's settled value in c, in the form Load accepts.
func (k Key) Value(c *Config) string {
	switch field := k.at(c).(type) {
	case *string:
		return *field
	case *bool:
		return strconv.FormatBool(*field)
	case *int:
		return strconv.Itoa(*field)
	case *Size:
		return field.String()
	case *time.Duration:
		return shortDuration(*field)
	case *[]netip.Prefix:
		parts := make([]string, len(*field))
		for i, p := range *field {
			parts[i] = p.String()
		}
		return strings.Join(parts, ",")
	default:
		panic("config: key " + k.Name + " has a field of no known type")
	}
}

// quoted tells whether TOML writes the value in quotes.
func (k Key) quoted() bool {
	switch k.at(&Config{}).(type) {
	case *bool, *int:
		return false
	default:
		return true
	}
}

// shortDuration is d without the zero parts time.Duration.String ends with: 10m, not 10m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// absolute makes p absolute against dir; empty stays empty.
func absolute(dir, p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(dir, p)
}
