package platform

import (
	"slices"
	"strings"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
)

// InputRootWhole is the value of InputRoot that makes the input root the root file system.
const InputRootWhole = "/"

// InputRootHost is where an input root stands among the machine's own tools, unless it is whole.
const InputRootHost = "/build"

// Request is what an action asks of its executor. The zero value asks for nothing.
type Request struct {
	OSFamily    string   // lower case; "" for any
	ISA         []string // normalised, sorted, without duplicates
	Pool        string   // "" for any
	Fingerprint string   // "" for any

	Cores       float64 // reserved while the action runs; 0 when nothing was asked
	MemoryBytes int64   // reserved while the action runs; 0 when nothing was asked

	UID, GID *uint32 // inside the sandbox; nil when nothing was asked
	Network  bool    // the action wants a network

	ContainerImage   string // as sent; "" for none
	ChrootRoot       string // hash/size of a Directory, as sent; "" for none
	RemoteAPIsSocket string // path inside the sandbox, relative to the input root; "" for none
	InputRoot        string // where the input root must stand: InputRootWhole or another path; "" for no wish
	Local            bool   // no-remote-exec: may run on the machine of its own client only
}

// Effective chooses between the platforms of an Action and its Command: the Action's wins whole,
// property lists are never mixed (message Action, field platform).
func Effective(ofAction, ofCommand *repb.Platform) *repb.Platform {
	if ofAction != nil {
		return ofAction
	}
	return ofCommand
}

// Parse reads the properties; nil asks for nothing. Errors are *InvalidError and *UnknownError, for the
// first property in the list that has a fault.
func Parse(p *repb.Platform) (Request, error) {
	var r Request
	for _, property := range p.GetProperties() {
		if property == nil {
			continue
		}
		if err := r.add(property.Name, property.Value); err != nil {
			return Request{}, err
		}
	}
	slices.Sort(r.ISA)
	r.ISA = slices.Compact(r.ISA)
	return r, nil
}

// add files one property under its class.
func (r *Request) add(name, value string) error {
	switch name {
	case "OSFamily":
		return setOnce(&r.OSFamily, name, normalOS(value))
	case "Pool":
		return setOnce(&r.Pool, name, value)
	case "host-fingerprint":
		return setOnce(&r.Fingerprint, name, value)
	case "ISA", "Arch":
		if value == "" {
			return &InvalidError{Property: name, Value: value, Reason: "is empty"}
		}
		r.ISA = append(r.ISA, normalISA(value))
		return nil
	case "cores", "min-cores", "EstimatedCPU":
		cores, err := parseCores(name, value)
		r.Cores = max(r.Cores, cores)
		return err
	case "min-mem", "EstimatedMemory":
		bytes, err := parseBytes(name, value)
		r.MemoryBytes = max(r.MemoryBytes, bytes)
		return err
	default:
		return r.interpret(name, value)
	}
}

// interpret files a property that changes how the action is set up, or refuses it.
func (r *Request) interpret(name, value string) error {
	switch name {
	case "unixUID":
		return setID(&r.UID, name, value)
	case "unixGID":
		return setID(&r.GID, name, value)
	case "network", "dockerNetwork":
		on, err := parseNetwork(name, value)
		r.Network = r.Network || on
		return err
	case "container-image":
		if value == "" || strings.EqualFold(value, "none") {
			return nil
		}
		return setOnce(&r.ContainerImage, name, value)
	case "chrootRootDigest":
		return setOnce(&r.ChrootRoot, name, value)
	case "remoteApisSocketPath":
		return setOnce(&r.RemoteAPIsSocket, name, value)
	case "InputRootAbsolutePath":
		return setOnce(&r.InputRoot, name, value)
	case "no-remote-exec":
		r.Local = r.Local || !strings.EqualFold(value, "false") && value != "0"
		return nil
	}
	if isHarmless(name, value) {
		return nil
	}
	return &UnknownError{Property: name, Value: value}
}

// setOnce fills a field that has room for one value; the same value again is tolerated.
func setOnce(field *string, name, value string) error {
	if value == "" {
		return &InvalidError{Property: name, Value: value, Reason: "is empty"}
	}
	if *field != "" && *field != value {
		return &InvalidError{Property: name, Value: value, Reason: "was already given as " + *field}
	}
	*field = value
	return nil
}
