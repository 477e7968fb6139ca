package sample

import (
	"bytes"
	"strconv"

	repb "github.com/bazelbuild/remote-apis/build/bazel/remote/execution/v2"
	"google.golang.org/protobuf/proto"

	"github.com/buildmesh/buildmesh/dht/digest"
)

// Sample is an action that fills a file with its name, one a line.
type Sample struct {
	Name string
	Size int64 // of the output, in bytes
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

// encode gives the action, and what it refers to.
func (s Sample) encode() (action []byte, rest [][]byte) {
	command := encoded(&repb.Command{
		Arguments:            []string{"/bin/sh", "-c", script, "sh", s.Name, strconv.FormatInt(s.Size, 10), output},
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
