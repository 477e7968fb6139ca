package platform

import "strings"

// harmless are properties that change nothing about how an action runs here, by exact name.
var harmless = map[string]bool{
	// Bazel: a salt that a user puts into every action to get past cached results.
	"cache-silo-key": true,
	// Bazel with --experimental_remote_mark_tool_inputs: tells a persistent worker pool which
	// process fits; without persistent workers the action runs by itself.
	"persistentWorkerKey":      true,
	"persistentWorkerProtocol": true,
	// Bazel: tags of a target that reach exec_properties; they speak to Bazel's own strategies.
	"no-sandbox":                   true,
	"no-cache":                     true,
	"no-remote-cache":              true,
	"supports-workers":             true,
	"supports-multiplex-workers":   true,
	"supports-worker-cancellation": true,
	"supports-path-mapping":        true,
	// Bazel: block-network asks for what is the default here.
	"block-network": true,
	// Rule sets written for hosted services: which kind of virtual machine to rent.
	"gceMachineType": true,
	// Rule sets written for BuildBuddy: reuse of a warm container between actions, and how it is isolated.
	"recycle-runner":          true,
	"preserve-workspace":      true,
	"workload-isolation-type": true,
	"affinity-routing":        true,
	"init-dockerd":            true,
	// Chromium's siso and reclient: the container runtime of a hosted service.
	"dockerRuntime": true,
}

// harmlessPrefixes are families of harmless properties.
var harmlessPrefixes = []string{
	"requires-", // Bazel: requires-worker-protocol, requires-darwin, requires-network: tags for its own strategies
	"label:",    // reclient and siso: a name for the kind of action, for the service's own statistics
}

// isHarmless reports whether a property changes nothing about how an action runs here.
func isHarmless(name, value string) bool {
	if harmless[name] {
		return true
	}
	for _, prefix := range harmlessPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	// Requests of reclient and siso for extra rights are harmless exactly when they ask for none.
	switch name {
	case "dockerPrivileged", "dockerRunAsRoot", "dockerSiblingContainers", "dockerAddCapabilities":
		return value == "" || strings.EqualFold(value, "false")
	}
	return false
}
