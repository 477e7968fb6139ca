package conformance

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/buildmesh/buildmesh/testnet/wrong"
)

var (
	endpoint  = flag.String("endpoint", "", "server to examine, such as grpc://127.0.0.1:8980; empty: the in-memory one")
	unix      = flag.String("unix", "", "path of the server's unix socket, instead of -endpoint")
	instance  = flag.String("instance", "", "instance name of every request")
	platform  = flag.String("platform", "", "platform properties an executor of the server satisfies, as k=v,k=v")
	require   = flag.String("require", "", `features whose absence is a failure, comma-separated, or "all"`)
	keepAlive = flag.Duration("keepalive", 0, "longest silence allowed on a stream of operations; 0 leaves that check out")
	patience  = flag.Duration("patience", 0, "deadline of a check, and the measure of all waiting in it; 0 is a minute")
	mustOnly  = flag.Bool("must", false, "leave out the rules that are recommendations")
)

// tally counts outcomes by section for the summary that ends a run.
type tally struct {
	mu     sync.Mutex // guards counts
	counts map[string]*[3]int
}

var outcomes = tally{counts: map[string]*[3]int{}}

func (c *tally) add(section string, o Outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[section] == nil {
		c.counts[section] = &[3]int{}
	}
	c.counts[section][o]++
}

func (c *tally) print() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum [3]int
	fmt.Printf("%-18s %7s %7s %7s\n", "section", "passed", "failed", "skipped")
	for _, sec := range Sections() {
		n := c.counts[sec.Name]
		if n == nil {
			continue
		}
		fmt.Printf("%-18s %7d %7d %7d\n", sec.Name, n[Passed], n[Failed], n[Skipped])
		for i := range sum {
			sum[i] += n[i]
		}
	}
	fmt.Printf("%-18s %7d %7d %7d\n", "total", sum[Passed], sum[Failed], sum[Skipped])
}

// waiting is how many tests run at a time: nearly all their time is waiting for commands that sleep.
const waiting = "12"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", waiting); err != nil {
		panic(err) // the testing package has the flag
	}
	code := m.Run()
	if len(outcomes.counts) > 0 {
		outcomes.print()
	}
	os.Exit(code)
}

// options are the Options of the flags; target is the server to use when they name none.
func options(t *testing.T, target string) Options {
	t.Helper()
	o := Options{Endpoint: target, Instance: *instance, Platform: map[string]string{}, KeepAlive: *keepAlive, Patience: *patience}
	if *endpoint != "" {
		o.Endpoint = *endpoint
	}
	if *unix != "" {
		o.Endpoint = "unix://" + *unix
	}
	for property := range strings.SplitSeq(*platform, ",") {
		if name, value, found := strings.Cut(property, "="); found {
			o.Platform[name] = value
		}
	}
	fs, err := ParseFeatures(*require)
	if err != nil {
		t.Fatal(err)
	}
	o.Require = fs
	return o
}

// subject connects to the server of the flags, or to a right in-memory one.
func subject(t *testing.T) *Subject {
	t.Helper()
	target := ""
	if *endpoint == "" && *unix == "" {
		started, stop, err := wrong.Start(wrong.None)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		target = started
	}
	ctx, cancel := context.WithTimeout(t.Context(), defaultPatience)
	defer cancel()
	s, err := Connect(ctx, options(t, target))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // the run is over
	return s
}

// examine runs the checks of one section as subtests named by their claims.
func examine(t *testing.T, section string) {
	if *endpoint == "" && *unix == "" {
		t.Parallel() // each section has a server of its own
	}
	s := subject(t)
	for _, sec := range Sections() {
		if sec.Name != section {
			continue
		}
		for _, c := range sec.Checks {
			if *mustOnly && c.Level != Must {
				continue
			}
			t.Run(c.Claim, func(t *testing.T) {
				defer func() {
					switch {
					case t.Failed():
						outcomes.add(section, Failed)
						t.Logf("the rule (%s): %s. Source: %s", c.Level, c.Rule, c.Source)
					case t.Skipped():
						outcomes.add(section, Skipped)
					default:
						outcomes.add(section, Passed)
					}
				}()
				c.Do(t.Context(), t, s)
			})
		}
	}
}

func TestCapabilities(t *testing.T)      { examine(t, "Capabilities") }
func TestEveryCall(t *testing.T)         { examine(t, "EveryCall") }
func TestDigestFunctions(t *testing.T)   { examine(t, "DigestFunctions") }
func TestResourceNames(t *testing.T)     { examine(t, "ResourceNames") }
func TestCAS(t *testing.T)               { examine(t, "CAS") }
func TestGetTree(t *testing.T)           { examine(t, "GetTree") }
func TestSplitSplice(t *testing.T)       { examine(t, "SplitSplice") }
func TestByteStreamRead(t *testing.T)    { examine(t, "ByteStreamRead") }
func TestByteStreamWrite(t *testing.T)   { examine(t, "ByteStreamWrite") }
func TestCompression(t *testing.T)       { examine(t, "Compression") }
func TestActionCache(t *testing.T)       { examine(t, "ActionCache") }
func TestMissingBlobs(t *testing.T)      { examine(t, "MissingBlobs") }
func TestOperationStream(t *testing.T)   { examine(t, "OperationStream") }
func TestExecutionPolicy(t *testing.T)   { examine(t, "ExecutionPolicy") }
func TestOperations(t *testing.T)        { examine(t, "Operations") }
func TestCommand(t *testing.T)           { examine(t, "Command") }
func TestInputs(t *testing.T)            { examine(t, "Inputs") }
func TestOutputs(t *testing.T)           { examine(t, "Outputs") }
func TestOutputDirectories(t *testing.T) { examine(t, "OutputDirectories") }
func TestNodeProperties(t *testing.T)    { examine(t, "NodeProperties") }
func TestRemoteAsset(t *testing.T)       { examine(t, "RemoteAsset") }
func TestLogStream(t *testing.T)         { examine(t, "LogStream") }
func TestCommonlyWrong(t *testing.T)     { examine(t, "CommonlyWrong") }
