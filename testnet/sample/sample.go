package sample

import (
	"bytes"
	"fmt"
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
}

// output is where the output is.
const output = "out"

// script repeats a name up to a size.
const script = `yes "$1" | head -c "$2" > "$3"`

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
	if seconds, sleeps := strings.CutPrefix(strings.TrimSuffix(arguments[2], "; "+script), "sleep "); sleeps {
		s.Takes, err = time.ParseDuration(seconds + "s")
	}
	return s, arguments[6], err
}

// encode gives the action, and what it refers to.
func (s Sample) encode() (action []byte, rest [][]byte) {
	words := []string{"/bin/sh", "-c", script, "sh", s.Name, strconv.FormatInt(s.Size, 10), output}
	if s.Takes > 0 {
		words[2] = fmt.Sprintf("sleep %g; %s", s.Takes.Seconds(), script)
	}
	command := encoded(&repb.Command{
		Arguments:            words,
		EnvironmentVariables: []*repb.Command_EnvironmentVariable{{Name: "PATH", Value: "/usr/local/bin:/usr/bin:/bin"}},
		OutputPaths:          []string{output},
	})
	root := encoded(&repb.Directory{})
	return encoded(&repb.Action{
		CommandDigest: digest.SHA256.Of(command).Proto(), InputRootDigest: digest.SHA256.Of(root).Proto(),
	}), [][]byte{command, root}
}

// encoded is a message's bytes, the same in every run.
func encoded(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err) // a message made here
	}
	return data
}
