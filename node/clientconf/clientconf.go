package clientconf

import (
	"fmt"
	"net"
	"strings"
)

// Endpoint is where a node answers Remote Execution.
type Endpoint struct {
	Address string // host:port, as listened on
	Execute bool   // false: a cache only
	Cores   int    // cores the node lends; at least 1
	Jobs    int    // actions that the mesh runs at once for this node; 0: not known
}

// dialable is the address a client on this machine dials: a wildcard host becomes loopback.
func (e Endpoint) dialable() string {
	host, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		return e.Address
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Bazel is the lines for a .bazelrc.
func Bazel(e Endpoint) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# buildmesh: put these lines into ~/.bazelrc or the workspace's .bazelrc\n")
	if e.Execute {
		fmt.Fprintf(&out, "build --remote_executor=grpc://%s\n", e.dialable())
		if e.Jobs > 0 {
			out.WriteString("# for the mesh as it is now; later: buildmesh jobs\n")
		}
		fmt.Fprintf(&out, "build --jobs=%d\n", max(8, 4*e.Cores, e.Jobs))
	} else {
		fmt.Fprintf(&out, "build --remote_cache=grpc://%s\n", e.dialable())
	}
	out.WriteString("build --incompatible_strict_action_env\n")
	out.WriteString("build --remote_timeout=600\n")
	out.WriteString("# fetch only what you asked to build (Bazel 5 and newer):\n")
	out.WriteString("# build --remote_download_toplevel\n")
	return out.String()
}

// BuildStream is the part of a buildstream.conf that names the node; instance is the REAPI instance
// name, "bst" by custom.
func BuildStream(e Endpoint, instance string) string {
	server := fmt.Sprintf("{url: %q, instance-name: %s, type: all, push: true}", "http://"+e.dialable(), instance)
	service := fmt.Sprintf("{url: %q, instance-name: %s}", "http://"+e.dialable(), instance)
	var out strings.Builder
	out.WriteString("# buildmesh: put this into ~/.config/buildstream.conf\n")
	for _, section := range []string{"artifacts", "source-caches"} {
		fmt.Fprintf(&out, "%s:\n  override-project-caches: true\n  servers:\n  - %s\n", section, server)
	}
	if e.Execute {
		out.WriteString("remote-execution:\n")
		for _, name := range []string{"execution-service", "storage-service", "action-cache-service"} {
			fmt.Fprintf(&out, "  %-22s%s\n", name+":", service)
		}
	}
	return out.String()
}
