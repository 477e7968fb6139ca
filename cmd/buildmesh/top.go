package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/buildmesh/buildmesh/node/control"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/charmbracelet/x/term"
	"google.golang.org/protobuf/encoding/protojson"
)

// topVerb is `buildmesh top`.
type topVerb struct {
	Every time.Duration `placeholder:"TIME" help:"Print a frame of plain text again and again, such as every 5s."`
	JSON  bool          `name:"json" help:"Print one frame as a JSON object, for programs."`
}

const (
	topEvery = time.Second     // between two frames on a terminal
	topWait  = 3 * time.Second // for one answer
)

// Run shows the mesh at work: on a terminal until q is pressed, else as plain text.
func (t *topVerb) Run(v *verbContext) error {
	if t.Every < 0 || t.Every > 0 && t.Every < 100*time.Millisecond {
		return usageError{fmt.Errorf("--every %v: want at least 100ms", t.Every)}
	}
	if _, err := v.load(); err != nil {
		return err
	}
	if t.JSON {
		return t.object(v)
	}
	out, isFile := v.out.(*os.File)
	if t.Every == 0 && isFile && term.IsTerminal(out.Fd()) && term.IsTerminal(os.Stdin.Fd()) {
		if _, err := v.askTop(v.ctx); err != nil { // a node that is not there is told as every verb tells it
			return err
		}
		_, err := tea.NewProgram(newTopModel(func() tea.Msg { return v.topNews() }),
			tea.WithContext(v.ctx), tea.WithOutput(out), tea.WithEnvironment(v.environ)).Run()
		if errors.Is(err, tea.ErrInterrupted) {
			return nil
		}
		return err
	}
	return t.plain(v)
}

// object prints one frame for programs.
func (t *topVerb) object(v *verbContext) error {
	answer, err := v.askTop(v.ctx)
	if err != nil {
		return err
	}
	text, err := protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true, UseProtoNames: true}.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(v.out, "%s\n", text)
	return err
}

// plain prints one frame, or one after the other until the context ends.
func (t *topVerb) plain(v *verbContext) error {
	model := newTopModel(nil)
	for {
		answer, err := v.askTop(v.ctx)
		if err != nil {
			return err
		}
		model.heard(topNews{answer: answer, at: time.Now()})
		if _, err := fmt.Fprint(v.out, model.frame(plainLook{})); err != nil || t.Every == 0 {
			return err
		}
		select {
		case <-time.After(t.Every):
		case <-v.ctx.Done():
			return nil
		}
		fmt.Fprintln(v.out)
	}
}

// askTop asks the node once. It connects each time: the node may have been started anew meanwhile.
func (v *verbContext) askTop(ctx context.Context) (*controlv1.TopResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, topWait)
	defer cancel()
	client, err := v.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	answer, err := client.Journal.Top(ctx, &controlv1.TopRequest{})
	if err != nil {
		return nil, plain(err)
	}
	return answer, nil
}

// topNews asks once and gives what came of it, as the model is told.
func (v *verbContext) topNews() topNews {
	answer, err := v.askTop(v.ctx)
	if errors.Is(err, control.ErrNoNode) {
		err = errors.New("no node answers; start one with: buildmesh up")
	}
	return topNews{answer: answer, err: err, at: time.Now()}
}
