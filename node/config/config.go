package config

import (
	"net/netip"
	"time"
)

// Config is everything a node was told, settled. Units and bounds stand with each Key.
type Config struct {
	Node   Node
	Dir    Dir
	Listen Listen
	Store  Store
	Exec   Exec
	Asset  Asset
	Mesh   Mesh
	Log    Log
	Lend   Lend

	origins map[string]Origin // key name -> where its value came from
}

// Node is how this node presents itself and how long it takes to leave.
type Node struct {
	Name  string        // for people; not an identity
	Drain time.Duration // how long a shutdown waits for running actions
}

// Dir is where a node keeps its files. All are absolute after Load.
type Dir struct {
	Base    string // when set, the three others default to folders in it
	State   string // identity; must survive
	Cache   string // blobs, action results, staged trees; may be lost between runs
	Runtime string // unix sockets
}

// Listen is the addresses a node answers on. An empty address is not listened on.
type Listen struct {
	GRPC   string // Remote Execution, host:port
	Socket string // Remote Execution, path of a unix socket
	Web    string // metrics, health and the status page, host:port
	Mesh   string // other members, ip:port
	Gossip string // gossip with members, ip:port
	QUIC   string // other members far away, over UDP, ip:port
}

// Store bounds the local blob store and the action results beside it.
type Store struct {
	MaxSize     Size
	MinFree     Size
	MaxBlob     Size
	Lease       time.Duration
	ResultsSize Size
	Replicas    int
	ReplicaRate Size
}

// Exec bounds what actions may take of this machine.
type Exec struct {
	Enabled        bool
	Cores          int
	Memory         Size
	Network        bool
	DefaultTimeout time.Duration
	MaxTimeout     time.Duration
	MaxDisk        Size
	MaxOutput      Size
	MaxPids        int
	RootInstances  string // names with commas between
	StageSize      Size

	Images          bool
	ImageRegistries string
	ImageSize       Size
	Bots            bool

	Pools   string // names with commas between
	Pretend string // platform properties, name=value with commas between
}

// Asset bounds what is downloaded for clients.
type Asset struct {
	Download bool           // fetch http and https URIs for clients
	Allow    []netip.Prefix // addresses that may be asked although they are not public
}

// Mesh says how this node takes part in a mesh.
type Mesh struct {
	Enabled  bool
	Discover bool           // by multicast on the local network
	Networks []netip.Prefix // whose interfaces are used; none: all
	Peers    string         // gossip addresses with commas between

	Trust     string // self, mesh, quorum K
	Instances string // whose results are shared, with commas between; empty: all
	NoShare   string // patterns of output paths, with commas between
	Locator   string // auto, summary, onehop
	Audit     string // percent
	Upload    Size   // bytes a second; 0: no bound
	Download  Size

	Site string // where it stands; peers of one site are near
}

// Log says what is logged, and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Kind of source a value came from.
type Kind int

// The sources of a value, weakest first.
const (
	Default Kind = iota
	File
	Environment
	Flag
)

// Origin is where the value of one key came from.
type Origin struct {
	Kind Kind
	Name string // file:line, environment variable or flag; empty for a default
}

// String is the form of `config show`: "default", "file /etc/x.toml:3", "env NAME", "flag --set".
func (o Origin) String() string {
	switch o.Kind {
	case File:
		return "file " + o.Name
	case Environment:
		return "env " + o.Name
	case Flag:
		return "flag " + o.Name
	default:
		return "default"
	}
}

// Origin tells where the value of the key with this name came from.
func (c *Config) Origin(name string) Origin { return c.origins[name] }
