package conformance

import (
	"context"
	"time"
)

// T is what a check needs of a test: *testing.T is one, Recorder is another.
//
// Fatalf and Skipf do not return; both must be called from the goroutine that runs the check.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Level says how binding a rule is.
type Level uint8

// The levels.
const (
	Must   Level = iota // the protocol says so, or a widely used client breaks without it
	Should              // the protocol recommends it
)

// String gives the level as the protocol writes it.
func (l Level) String() string {
	if l == Should {
		return "SHOULD"
	}
	return "MUST"
}

// defaultPatience bounds every check, whatever the server does.
const defaultPatience = 60 * time.Second

// Check is one claim about a server and the way to refute it.
type Check struct {
	Claim  string    // the rule as a claim, words joined by underscores: the test's name
	Rule   string    // the rule in one sentence, for the author of a server that fails
	Source string    // where it stands: message or method of the protocol, or the client that needs it
	Level  Level     // Must unless said otherwise
	Needs  []Feature // what the server has to offer for the claim to apply; else the check is skipped
	Run    func(ctx context.Context, t T, s *Subject)
}

// Section is a part of the protocol with its checks.
type Section struct {
	Name   string
	Checks []Check
}

// Sections lists every check, in the order in which a server is best mended. The last section
// repeats, under the names of the mistakes, checks of the others.
func Sections() []Section {
	all := sections()
	return append(all, Section{"CommonlyWrong", mistakes(all)})
}

func sections() []Section {
	return []Section{
		{"Capabilities", capabilitiesChecks()},
		{"EveryCall", everyCallChecks()},
		{"DigestFunctions", functionChecks()},
		{"ResourceNames", nameChecks()},
		{"CAS", casChecks()},
		{"GetTree", getTreeChecks()},
		{"SplitSplice", chunkChecks()},
		{"ByteStreamRead", readChecks()},
		{"ByteStreamWrite", writeChecks()},
		{"Compression", compressionChecks()},
		{"ActionCache", actionCacheChecks()},
		{"MissingBlobs", missingChecks()},
		{"OperationStream", streamChecks()},
		{"ExecutionPolicy", policyChecks()},
		{"Operations", operationsChecks()},
		{"Command", commandChecks()},
		{"Inputs", inputChecks()},
		{"Outputs", outputChecks()},
		{"OutputDirectories", treeChecks()},
		{"NodeProperties", propertyChecks()},
		{"RemoteAsset", assetChecks()},
		{"LogStream", logStreamChecks()},
	}
}

// Find looks a check up by its section's name and its claim.
func Find(section, claim string) (Check, bool) { return find(Sections(), section, claim) }

func find(all []Section, section, claim string) (Check, bool) {
	for _, sec := range all {
		for _, c := range sec.Checks {
			if sec.Name == section && c.Claim == claim {
				return c, true
			}
		}
	}
	return Check{}, false
}

// Do runs the check against s, within a deadline of its own. It skips, with words, what s does not
// offer, and fails instead when the run requires that feature.
func (c Check) Do(ctx context.Context, t T, s *Subject) {
	t.Helper()
	for _, f := range c.Needs {
		reason, absent := s.absent[f]
		switch {
		case absent && s.required[f]:
			t.Fatalf("the server does not offer %s, which this run requires: %s", f, reason)
		case absent:
			t.Skipf("the server does not offer %s: %s", f, reason)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience+3*s.keepAlive)
	defer cancel()
	c.Run(ctx, t, s)
}
