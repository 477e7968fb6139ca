package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/buildmesh/buildmesh/testnet/wrong"
)

// subject is a client of a correct server in memory.
func subject(t *testing.T, name string) *Subject {
	t.Helper()
	endpoint, stop, err := wrong.Start(wrong.None)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	s, err := dial(t.Context(), name, strings.TrimPrefix(endpoint, "grpc://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	s.Executes = true
	return s
}

// Every row gets a figure of a correct server, so a row fails only when a server answers wrongly.
func TestRowsAgainstAServerInMemory(t *testing.T) {
	ours, theirs := subject(t, "ours"), subject(t, "theirs")
	p := plan{content: newContent(1), quick: true}
	for _, row := range append(p.cacheRows(), p.execRows()...) {
		t.Run(row.Name, func(t *testing.T) {
			result, err := measure(t.Context(), row, ours, theirs, 1)
			if err != nil {
				t.Fatal(err)
			}
			if result.Ours.Median <= 0 || result.Theirs.Median <= 0 {
				t.Errorf("figures %v and %v, want both above 0", result.Ours, result.Theirs)
			}
		})
	}
}

// A row whose answers are wrong has no figure.
func TestWrongAnswersAreNotMeasured(t *testing.T) {
	s := subject(t, "ours")
	failing := Row{Name: "x", Prepare: func(context.Context, *Subject) (Round, error) {
		return func(context.Context) (float64, error) { return 0, errors.New("wrong answer") }, nil
	}}
	if _, err := measure(t.Context(), failing, s, nil, 1); err == nil || !strings.Contains(err.Error(), "wrong answer") {
		t.Errorf("error %v, want the row's own", err)
	}
}

// What the other server refuses leaves its figure out, and ours stays.
func TestTheOtherMayRefuse(t *testing.T) {
	ours, theirs := subject(t, "ours"), subject(t, "theirs")
	row := Row{Name: "x", Prepare: func(_ context.Context, s *Subject) (Round, error) {
		return func(context.Context) (float64, error) {
			if s == theirs {
				return 0, errors.New("refused")
			}
			return 1, nil
		}, nil
	}}
	result, err := measure(t.Context(), row, ours, theirs, 3)
	if err != nil || result.Ours.Median != 1 || !result.Theirs.Absent || result.Ratio() != 0 {
		t.Errorf("%+v, %v: want our figure alone", result, err)
	}
}

func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Figure
	}{
		{nil, Figure{Absent: true}},
		{[]float64{3}, Figure{Median: 3, Min: 3, Max: 3}},
		{[]float64{9, 1, 5}, Figure{Median: 5, Min: 1, Max: 9}},
		{[]float64{4, 1, 2, 9}, Figure{Median: 3, Min: 1, Max: 9}},
	} {
		if got := summarise(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
}

func TestRatioFollowsTheBetterDirection(t *testing.T) {
	fast, slow := Figure{Median: 10}, Figure{Median: 5}
	if r := (Result{Row: Row{Higher: true}, Ours: fast, Theirs: slow}).Ratio(); r != 2 {
		t.Errorf("a rate twice as high is %v times better", r)
	}
	if r := (Result{Row: Row{}, Ours: fast, Theirs: slow}).Ratio(); r != 0.5 {
		t.Errorf("a time twice as long is %v times better", r)
	}
	if r := (Result{Ours: fast, Theirs: Figure{Absent: true}}).Ratio(); r != 0 {
		t.Errorf("nothing beside gives %v", r)
	}
}

func TestRateStopsAtTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	calls := 0
	_, err := rate(t.Context(), 1, 100, func(context.Context, int) error {
		calls++
		if calls == 3 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || calls != 3 {
		t.Errorf("error %v after %d calls, want the third one's after 3", err, calls)
	}
}

func TestReport(t *testing.T) {
	report := Report{Ours: "node", Theirs: "other", Note: "a note", Machine: "a machine", OursPeak: 50, TheirsPeak: 100,
		Results: []Result{
			{Row: Row{Name: "twice <as> good", Unit: "x/s", Higher: true}, Ours: Figure{Median: 200, Min: 1, Max: 300}, Theirs: Figure{Median: 100}},
			{Row: Row{Name: "alone", Unit: "ms"}, Ours: Figure{Median: 1.25}, Theirs: Figure{Absent: true}},
		}}
	var table, svg bytes.Buffer
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| twice <as> good | x/s | 200 (1.00..300) | other | 100", "| 2.00 |", "| alone | ms | 1.25", "| peak memory of the whole run | MiB | 50.0 | other | 100 | 2.00 |"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("%q is not in the table:\n%s", want, table.String())
		}
	}
	if err := report.WriteSVG(&svg); err != nil {
		t.Fatal(err)
	}
	bars := 0
	for decoder := xml.NewDecoder(&svg); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the picture is not well formed: %v", err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 2 { // the background and one row that has a ratio
		t.Errorf("%d rectangles, want 2", bars)
	}
}
