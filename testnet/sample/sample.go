package sample

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Sample is an action that fills a file with its name, one a line.
type Sample struct {
	Name  string
	Size  int64         // of the output, in bytes
	Takes time.Duration // that it sleeps before
	Eats  int64         // bytes of memory that it fills before, at least
	Asks  string        // of the platform: a property, NAME=VALUE; "": nothing
	Whole bool          // it brings its whole root: this machine's busybox and nothing else
}

// Shell is the program that a whole root is made of, one that needs no library: busybox-static has it.
const Shell = "/bin/busybox"

// output is where the output is.
const output = "out"

// script repeats a name up to a size.
const script = `yes "$1" | head -c "$2" > "$3"`

// eating fills memory with as many bytes as it is given, twice.
const eating = "head -c %d /dev/zero | tail -c %d > /dev/null && "

// Content is what the output has to be.
func (s Sample) Content() []byte {
	line := []byte(s.Name + "\n")
	return bytes.Repeat(line, int(s.Size)/len(line)+1)[:s.Size]
}

// Digest is the action's.
func (s Sample) Digest() digest.Digest {
	action, _ := s.encode()
	return digest.SHA256.Of(action)
}

// Of gives the sample that a command makes, and where its output is. An error means that it is another command.
func Of(arguments []string) (s Sample, output string, err error) {
	if len(arguments) != 7 || !strings.HasSuffix(arguments[2], script) {
		return s, "", fmt.Errorf("%q makes no sample", arguments)
	}
	s.Name = arguments[4]
	if s.Size, err = strconv.ParseInt(arguments[5], 10, 64); err != nil {
		return s, "", err
	}
	before := strings.TrimSuffix(arguments[2], script)
	if rest, sleeps := strings.CutPrefix(before, "sleep "); sleeps {
		var seconds string
		seconds, before, _ = strings.Cut(rest, "; ")
		if s.Takes, err = time.ParseDuration(seconds + "s"); err != nil {
			return s, "", err
		}
	}
	if before != "" {
		_, err = fmt.Sscanf(before, eating, &s.Eats, &s.Eats)
	}
	return s, arguments[6], err
}

// encode gives the action, and what it refers to.
func (s Sample) encode() (action []byte, rest [][]byte) {
	words := []string{"/bin/sh", "-c", script, "sh", s.Name, strconv.FormatInt(s.Size, 10), output}
	if s.Eats > 0 {
		words[2] = fmt.Sprintf(eating, s.Eats, s.Eats) + script
	}
	if s.Takes > 0 {
		words[2] = fmt.Sprintf("sleep %g; %s", s.Takes.Seconds(), words[2])
	}
	command := encoded(&repb.Command{
		Arguments:            words,
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: "/usr/local/bin:/usr/bin:/bin"}},
		OutputPaths:          []string{output},
	})
	tree := s.root()
	a := &repb.Action{CommandDigest: digest.SHA256.Of(command).Proto(), InputRootDigest: digest.SHA256.Of(tree[0]).Proto(), Platform: s.platform()}
	return encoded(a), append(tree, command)
}

// platform is what the action asks for.
func (s Sample) platform() *repb.Platform {
	p := &repb.Platform{}
	if s.Whole {
		p.Properties = append(p.Properties, &repb.Platform_Property{Name: "InputRootAbsolutePath", Value: "/"})
	}
	if name, value, asks := strings.Cut(s.Asks, "="); asks {
		p.Properties = append(p.Properties, &repb.Platform_Property{Name: name, Value: value})
	}
	if len(p.Properties) == 0 {
		return nil
	}
	return p
}

// root is the input root, first its own directory, then what is in it.
func (s Sample) root() [][]byte {
	nothing := encoded(&repb.Directory{})
	if !s.Whole {
		return [][]byte{nothing}
	}
	program, err := os.ReadFile(Shell)
	if err != nil {
		panic(err) // who wants a whole root looks for Shell before
	}
	bin := &repb.Directory{Files: []*repb.FileNode{{Name: "busybox", Digest: digest.SHA256.Of(program).Proto(), IsExecutable: true}}}
	for _, name := range []string{"head", "sh", "sleep", "yes"} {
		bin.Symlinks = append(bin.Symlinks, &repb.SymlinkNode{Name: name, Target: "busybox"})
	}
	programs := encoded(bin)
	root := &repb.Directory{Directories: []*repb.DirectoryNode{{Name: "bin", Digest: digest.SHA256.Of(programs).Proto()}}}
	for _, name := range []string{"dev", "etc", "proc", "tmp"} {
		root.Directories = append(root.Directories, &repb.DirectoryNode{Name: name, Digest: digest.SHA256.Of(nothing).Proto()})
	}
	return [][]byte{encoded(root), programs, nothing, program}
}

// encoded is a message's bytes, the same in every run.
func encoded(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // a message made here
	}
	return data
}
