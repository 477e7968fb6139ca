package scenarios

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/testnet/sample"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// buildLimit is how long samples may take.
const buildLimit = time.Minute

// parseSamples reads names of samples, and after `with size=` the size of their outputs, which else is 100 bytes.
func parseSamples(text string) ([]sample.Sample, error) {
	names, size, large := strings.Cut(text, " with size=")
	bytes := int64(100)
	if large {
		var err error
		if bytes, err = strconv.ParseInt(size, 10, 64); err != nil {
			return nil, err
		}
	}
	var samples []sample.Sample
	for name := range strings.FieldsSeq(names) {
		samples = append(samples, sample.Sample{Name: name, Size: bytes})
	}
	return samples, nil
}

// dial gives a client of a node's endpoint; the caller closes it.
func (w *World) dial(name string) (*sample.Client, error) {
	n := w.Lab.Node(name)
	if n == nil {
		return nil, fmt.Errorf("there is no node %s", name)
	}
	return sample.Dial("unix:" + filepath.Join(n.Dir(), "state", "run", "buildmesh.sock"))
}

// each does something with every sample that a sentence names, at once, and gives what became of each.
func (w *World) each(ctx context.Context, step scenario.Step, do func(*sample.Client, context.Context, sample.Sample) (*sample.Built, error)) ([]string, error) {
	samples, err := parseSamples(step.Rest)
	if err != nil {
		return nil, err
	}
	client, err := w.dial(step.Names[0])
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	said := make([]string, len(samples))
	var building sync.WaitGroup
	for i, s := range samples {
		building.Go(func() {
			built, err := do(client, ctx, s)
			said[i] = s.Name + ": " + builtText(built, err)
		})
	}
	building.Wait()
	return said, nil
}

// build has a node build samples and prints a line for each.
func (w *World) build(ctx context.Context, step scenario.Step) ([]string, error) {
	started := time.Now()
	said, err := w.each(ctx, step, (*sample.Client).Build)
	w.Log("%s: took %v", step.Text, time.Since(started).Round(10*time.Millisecond))
	return said, err
}

// has is build without a line to print.
func (w *World) has(ctx context.Context, step scenario.Step) ([]string, error) {
	said, err := w.each(ctx, step, (*sample.Client).Build)
	return nil, errors.Join(err, allRight(said))
}

// withinFinds waits until a node knows samples or finds them in its mesh.
func (w *World) withinFinds(ctx context.Context, step scenario.Step) (said []string, err error) {
	err = w.wait(ctx, step, func(ctx context.Context) (err error) {
		if said, err = w.each(ctx, step, (*sample.Client).Find); err == nil {
			err = allRight(said)
		}
		return err
	})
	return said, err
}

// allRight reports what is not.
func allRight(said []string) error {
	for _, line := range said {
		if !strings.HasSuffix(line, right) {
			return errors.New(line)
		}
	}
	return nil
}

// right ends the line of a sample whose bytes are what they have to be.
const right = ", right"

// builtText is what became of a sample in words.
func builtText(b *sample.Built, err error) string {
	if err != nil {
		return "not built: " + status.Convert(err).Message()
	}
	text := "ran on " + b.Worker
	if b.Known { // of several that signed the same, any may be named
		text = "known"
	}
	if !b.Right {
		return text + ", WRONG bytes"
	}
	return text + right
}
