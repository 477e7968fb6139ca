package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/alecthomas/kong"
	"github.com/buildmesh/buildmesh/node"
	"github.com/buildmesh/buildmesh/node/config"
	"github.com/buildmesh/buildmesh/node/control"
)

// version is set when the binary is linked.
var version = "unknown"

// Exit statuses; doc.go tells them.
const (
	statusDone = iota
	statusFailed
	statusUsage
	statusNoNode
	statusFound
)

// errFound ends a verb that did its work and found something wrong; what, it has printed.
var errFound = errors.New("found something wrong")

// usageError is an error of the person who typed the command or wrote the configuration.
type usageError struct{ error }

// cli is the grammar of the command line.
type cli struct {
	Settings settings `embed:""`

	Up        upVerb        `cmd:"" help:"Run a node until interrupted."`
	Status    statusVerb    `cmd:"" help:"Print what the running node is and does."`
	Doctor    doctorVerb    `cmd:"" help:"Find what is wrong on this machine and what mends it."`
	Peers     peersVerb     `cmd:"" help:"Print the other members of the mesh as this node sees them."`
	Why       whyVerb       `cmd:"" help:"Tell how an action went, where and why there, and what changed since the last time."`
	Top       topVerb       `cmd:"" help:"Watch who runs what for whom in the mesh."`
	Jobs      jobsVerb      `cmd:"" help:"Print the number for --jobs: what the mesh can run at once."`
	Members   membersVerb   `cmd:"" help:"Print which mesh the running node is in, and who else."`
	Export    exportVerb    `cmd:"" help:"Write a target, an artifact or a tree to a directory, a tar or an OCI layout."`
	Import    importVerb    `cmd:"" help:"Bring a directory, a tar or an OCI layout into the running node."`
	Pause     pauseVerb     `cmd:"" help:"Lend this machine to nobody for a time."`
	Resume    resumeVerb    `cmd:"" help:"Lend this machine again."`
	Invite    inviteVerb    `cmd:"" help:"Make a code with which another node can join the mesh."`
	Join      joinVerb      `cmd:"" help:"Take the running node into the mesh a code is for."`
	Leave     leaveVerb     `cmd:"" help:"Take the running node out of its mesh, into one of its own."`
	Init      initVerb      `cmd:"" help:"Found a mesh with a name and a root key where you want it."`
	Revoke    revokeVerb    `cmd:"" help:"Turn a member out of the mesh for good."`
	Appoint   appointVerb   `cmd:"" help:"Make a member a steward, who may invite and renew others."`
	Cache     cacheVerb     `cmd:"" help:"Look into, verify or tidy the cache of the running node."`
	Bazelrc   bazelrcVerb   `cmd:"" help:"Print the lines a .bazelrc needs."`
	Bstconf   bstconfVerb   `cmd:"" help:"Print the part a buildstream.conf needs."`
	Bstplugin bstpluginVerb `cmd:"" help:"Print or install BuildStream's source plugin mesh_cas."`
	Config    configVerb    `cmd:"" help:"Show or check the configuration."`
	Testnet   testnetVerb   `cmd:"" help:"Run a mesh of several nodes on this machine, to try."`
	Version   versionVerb   `cmd:"" help:"Print the version."`
}

// settings are the flags every verb takes to find out how, or which, node is configured.
type settings struct {
	File   string   `name:"config" placeholder:"FILE" help:"Configuration file (default: buildmesh/config.toml in $$XDG_CONFIG_HOME)."`
	Dir    string   `placeholder:"DIR" help:"Keep everything in this directory (key dir.base)."`
	Listen string   `placeholder:"ADDR" help:"Remote Execution on host:port (key listen.grpc)."`
	Web    string   `placeholder:"ADDR" help:"Metrics and status page on host:port (key listen.web)."`
	Set    []string `placeholder:"KEY=VALUE" sep:"none" help:"Set any key of the configuration; may be repeated."`
}

// verbContext is what a verb may use.
type verbContext struct {
	ctx      context.Context
	out      io.Writer
	errOut   io.Writer
	environ  []string
	settings *settings
}

// load settles the configuration. Its errors are the user's to mend.
func (v *verbContext) load() (*config.Config, error) {
	src, err := v.settings.source(v.environ)
	if err != nil {
		return nil, usageError{err}
	}
	c, err := config.Load(src)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// source turns the flags into settings of keys.
func (s *settings) source(environ []string) (config.Source, error) {
	src := config.Source{File: s.File, Environ: environ}
	for _, short := range []config.Setting{
		{Key: "dir.base", Value: s.Dir, Flag: "--dir"},
		{Key: "listen.grpc", Value: s.Listen, Flag: "--listen"},
		{Key: "listen.web", Value: s.Web, Flag: "--web"},
	} {
		if short.Value != "" {
			src.Settings = append(src.Settings, short)
		}
	}
	for _, pair := range s.Set {
		key, value, found := cut(pair)
		if !found {
			return src, fmt.Errorf("--set %s: want KEY=VALUE", pair)
		}
		src.Settings = append(src.Settings, config.Setting{Key: key, Value: value, Flag: "--set"})
	}
	return src, nil
}

func main() {
	node.Main()
	os.Exit(run(os.Args[1:], verbContext{
		ctx: context.Background(), out: os.Stdout, errOut: os.Stderr, environ: os.Environ(),
	}))
}

// run parses args, runs the verb and gives the exit status.
func run(args []string, v verbContext) int {
	var grammar cli
	v.settings = &grammar.Settings
	ended := -1 // set when kong prints help and is done
	parser, err := kong.New(&grammar,
		kong.Name("buildmesh"),
		kong.Description("A node of the build mesh: a Remote Execution endpoint for Bazel and BuildStream on this machine.\n\n"+
			"Exit status: 0 done; 1 failed; 2 wrong usage or configuration; 3 no node answers; 4 found something wrong."),
		kong.Writers(v.out, v.errOut),
		kong.Exit(func(status int) { ended = status }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: false}),
	)
	if err != nil {
		panic(err) // the grammar itself is wrong
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if ended >= 0 {
		return ended
	}
	if err != nil {
		fmt.Fprintf(v.errOut, "buildmesh: %v; `buildmesh --help` lists the commands\n", err)
		return statusUsage
	}
	return v.status(parsed.Run(&v))
}

// status prints an error the way a person reads it and gives the exit status that goes with it.
func (v *verbContext) status(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return statusDone
	case errors.Is(err, errFound):
		return statusFound
	case errors.As(err, &usage):
		fmt.Fprintf(v.errOut, "buildmesh: %v\n", err)
		return statusUsage
	case errors.Is(err, control.ErrNoNode):
		fmt.Fprintf(v.errOut, "buildmesh: %v; start one with: buildmesh up\n", err)
		return statusNoNode
	default:
		fmt.Fprintf(v.errOut, "buildmesh: %v\n", err)
		return statusFailed
	}
}
