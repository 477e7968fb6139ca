package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/testnet/sample"
	"github.com/buildmesh/buildmesh/testnet/scenario"
)

// buildLimit is how long samples may take.
const buildLimit = time.Minute

// parseSamples reads names of samples, b1..b9 for several, and after `with` the `size=` of their outputs, which else is 100
// bytes, the time each `takes=`, the bytes of memory that it `eats=`, a property of the platform that it `asks=` for, and
// `root=whole` when it brings its whole root.
func parseSamples(text string) ([]sample.Sample, error) {
	names, options, _ := strings.Cut(text, " with ")
	like := sample.Sample{Size: 100}
	for option := range strings.FieldsSeq(options) {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "size":
			like.Size, err = strconv.ParseInt(value, 10, 64)
		case "takes":
			like.Takes, err = time.ParseDuration(value)
		case "eats":
			like.Eats, err = strconv.ParseInt(value, 10, 64)
		case "asks":
			like.Asks = value
		case "root":
			if like.Whole = value == "whole"; !like.Whole {
				err = fmt.Errorf("a root is whole, not %q", value)
			} else if _, err = os.Stat(sample.Shell); err != nil {
				err = fmt.Errorf("%w: apt-get install busybox-static", err)
			}
		default:
			err = fmt.Errorf("samples have no %s", key)
		}
		if err != nil {
			return nil, err
		}
	}
	var samples []sample.Sample
	for word := range strings.FieldsSeq(names) {
		some, err := scenario.Expand(word)
		if err != nil {
			return nil, err
		}
		for _, name := range some {
			like.Name = name
			samples = append(samples, like)
		}
	}
	return samples, nil
}

// dial gives a client of a node's endpoint; the caller closes it.
func (w *World) dial(name string) (*sample.Client, error) {
	n, err := w.node(name)
	if err != nil {
		return nil, err
	}
	return sample.Dial(n.Endpoint())
}

// outcome is what became of one sample.
type outcome struct {
	name  string
	built *sample.Built
	err   error
}

// String is the line that a sentence prints.
func (o outcome) String() string {
	text := "ran on "
	switch {
	case o.err != nil:
		message, _, _ := strings.Cut(status.Convert(o.err).Message(), " (offered: ") // what machines have differs
		return o.name + ": not built: " + message
	case o.built.Known: // of several that signed the same, any may be named
		text = "known"
	default:
		text += o.built.Worker
	}
	if !o.built.Right {
		return o.name + ": " + text + ", WRONG bytes"
	}
	return o.name + ": " + text + ", right"
}

// outcomes are those of the samples of one sentence.
type outcomes []outcome

// lines are what the sentence prints.
func (all outcomes) lines() []string {
	lines := make([]string, len(all))
	for i, o := range all {
		lines[i] = o.String()
	}
	return lines
}

// right reports the first that is not there, or not what it has to be.
func (all outcomes) right() error {
	for _, o := range all {
		if o.err != nil || !o.built.Right {
			return errors.New(o.String())
		}
	}
	return nil
}

// known reports the first that is not there.
func (all outcomes) known() error {
	for _, o := range all {
		if o.err != nil {
			return errors.New(o.String())
		}
	}
	return nil
}

// named are the samples of a sentence, and a client of its node.
func (w *World) named(step scenario.Step) ([]sample.Sample, *sample.Client, error) {
	samples, err := parseSamples(step.Rest)
	if err != nil {
		return nil, nil, err
	}
	client, err := w.dial(step.Names[0])
	return samples, client, err
}

// each does something with every sample that a sentence names, at once.
func (w *World) each(ctx context.Context, step scenario.Step, do func(*sample.Client, context.Context, sample.Sample) (*sample.Built, error)) (outcomes, error) {
	samples, client, err := w.named(step)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	began, all := time.Now(), make(outcomes, len(samples))
	var building sync.WaitGroup
	for i, s := range samples {
		building.Go(func() {
			built, err := do(client, ctx, s)
			all[i] = outcome{s.Name, built, err}
		})
	}
	building.Wait()
	w.Log("%s: took %v", step.Text, time.Since(began).Round(10*time.Millisecond))
	return all, nil
}

// build has a node build samples and prints a line for each.
func (w *World) build(ctx context.Context, step scenario.Step) ([]string, error) {
	all, err := w.each(ctx, step, (*sample.Client).Build)
	return all.lines(), err
}

// withinBuilds is build with another limit.
func (w *World) withinBuilds(ctx context.Context, step scenario.Step) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(float64(step.Duration)*w.Patience))
	defer cancel()
	return w.build(ctx, step)
}

// begin has a node build samples and prints where each runs. They go on until they end or the world does.
func (w *World) begin(ctx context.Context, step scenario.Step) ([]string, error) {
	samples, client, err := w.named(step)
	if err != nil {
		return nil, err
	}
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	w.begun = append(w.begun, end, client.Close)
	limit := time.AfterFunc(buildLimit, end)
	var lines []string
	for _, s := range samples {
		worker, err := client.Begin(lasting, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		lines = append(lines, s.Name+": runs on "+worker)
	}
	limit.Stop()
	return lines, nil
}

// has is build without a line to print.
func (w *World) has(ctx context.Context, step scenario.Step) ([]string, error) {
	all, err := w.each(ctx, step, (*sample.Client).Build)
	return nil, errors.Join(err, all.right())
}

// lacks asks for what must not be known.
func (w *World) lacks(ctx context.Context, step scenario.Step) ([]string, error) {
	all, err := w.each(ctx, step, (*sample.Client).Find)
	for _, o := range all {
		if status.Code(o.err) != codes.NotFound {
			return nil, errors.New(o.String())
		}
	}
	return nil, err
}

// withinLacks asks for what must not be known, again and again until a verb prints the transcript: of a member that does not
// answer in time a node learns nothing, and asks it the next time.
func (w *World) withinLacks(ctx context.Context, step scenario.Step) (said []string, err error) {
	samples, verb, found := strings.Cut(step.Rest, " until ")
	if !found {
		return nil, errors.New("want NAME lacks SAMPLES until VERB")
	}
	looking, telling := step, step
	looking.Rest, telling.Rest = samples, verb
	var known error
	err = w.wait(ctx, step, func(ctx context.Context) error {
		if _, wrong := w.lacks(ctx, looking); wrong != nil && ctx.Err() == nil {
			known = wrong
			return nil // never again right
		}
		said, err = w.says(ctx, telling)
		return err
	})
	return said, errors.Join(known, err)
}

// withinFinds waits until a node knows samples or finds them in its mesh, whatever their bytes.
func (w *World) withinFinds(ctx context.Context, step scenario.Step) ([]string, error) {
	var all outcomes
	err := w.wait(ctx, step, func(ctx context.Context) (err error) {
		if all, err = w.each(ctx, step, (*sample.Client).Find); err == nil {
			err = all.known()
		}
		return err
	})
	return all.lines(), err
}
