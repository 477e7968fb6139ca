package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/charmbracelet/x/ansi"
)

// topSeen is a mesh at work.
func topSeen() *controlv1.TopResponse {
	return &controlv1.TopResponse{
		Mesh: "office", BytesIn: 12 << 20, BytesOut: 3 << 20, Queued: 2, Actions: &controlv1.Actions{Succeeded: 1204, Failed: 2, Cached: 311},
		Machines: []*controlv1.Machine{
			{Name: "ana", PeerId: "1", Self: true, Cores: 4, Answered: true, Shares: []*controlv1.Share{{Name: "ana", PeerId: "1", Cores: 3, Actions: 3}, {Name: "anton", PeerId: "2", Cores: 1, Actions: 1}}},
			{Name: "ben", PeerId: "3", Cores: 8, Answered: true, Shares: []*controlv1.Share{{Name: "ana", PeerId: "1", Cores: 2.5, Actions: 2}}},
			{Name: "cleo", PeerId: "4", Cores: 2, State: "paused: on battery", Answered: true},
			{Name: "dan", PeerId: "5", Cores: 6, Free: 4},
			{Name: "büro-server", PeerId: "6", Cores: 256, Answered: true, Shares: []*controlv1.Share{{Name: "ben", PeerId: "3", Cores: 100, Actions: 90}}},
			{Name: "tv", PeerId: "7", State: "runs no actions", Answered: true},
		},
		Flights: []*controlv1.Flight{
			{Stage: "running", Age: took(75 * time.Second), Mnemonic: "CppCompile", Target: "//app:grep", Worker: "ben"},
			{Stage: "queued", Age: took(300 * time.Millisecond), Mnemonic: "CppLink", Target: "//app:a\x1b[2Jevil\n"},
			{Stage: "running", Age: took(2 * time.Second), Target: "greeting/hello.bst", Worker: "ana"},
			{Stage: "running", Age: took(time.Second), Words: "gcc -c a.c", Worker: "ana"},
		},
	}
}

// TestTopFrames: what people see, on paper, on a narrow terminal, and when the node is gone.
func TestTopFrames(t *testing.T) {
	var out strings.Builder
	m := newTopModel(nil)
	show := func(name string) { out.WriteString("== " + name + "\n" + m.frame(plainLook{})) }
	show("before the first answer")
	m.heard(topNews{answer: topSeen(), at: whyNow})
	show("the first answer")
	next := topSeen()
	next.BytesIn += 5 << 20
	m.heard(topNews{answer: next, at: whyNow.Add(2 * time.Second)})
	m.Update(tea.WindowSizeMsg{Width: 44, Height: 14})
	show("44 columns, 14 lines")
	m.Update(tea.WindowSizeMsg{Width: 0, Height: 0})
	m.heard(topNews{err: errors.New("no node answers; start one with: buildmesh up"), at: whyNow.Add(3 * time.Second)})
	m.heard(topNews{err: errors.New("no node answers; start one with: buildmesh up"), at: whyNow.Add(9 * time.Second)})
	show("the node is gone")
	alone := newTopModel(nil)
	alone.heard(topNews{answer: &controlv1.TopResponse{Machines: []*controlv1.Machine{{Name: "ana", Self: true, Cores: 2, Answered: true}}}, at: whyNow})
	m = alone
	show("alone and idle")
	golden(t, "top.txt", out.String())
}

// TestTopModel: asking goes on once a second whatever comes back, q ends it, and a node that was started anew has no
// negative rate.
func TestTopModel(t *testing.T) {
	asked := 0
	m := newTopModel(func() tea.Msg { asked++; return topNews{} })
	m.Init()()
	for _, news := range []topNews{{answer: topSeen(), at: whyNow}, {err: errors.New("gone"), at: whyNow.Add(time.Second)}, {answer: &controlv1.TopResponse{}, at: whyNow.Add(2 * time.Second)}} {
		_, again := m.Update(news)
		if again == nil {
			t.Fatal("nobody asks again")
		}
	}
	if m.rates || m.err != nil {
		t.Errorf("after a new start: rates %v, %v", m.rates, m.err)
	}
	if _, ask := m.Update(topTick{}); ask == nil {
		t.Error("a tick asks nobody")
	} else if ask(); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: tea.KeyEscape}, {Code: 'c', Mod: tea.ModCtrl}} {
		if _, quit := m.Update(key); quit == nil {
			t.Errorf("%s does nothing", key)
		} else if _, is := quit().(tea.QuitMsg); !is {
			t.Errorf("%s does not end it", key)
		}
	}
	if _, cmd := m.Update(tea.KeyPressMsg{Code: 'x', Text: "x"}); cmd != nil {
		t.Error("x does something")
	}
}

// TestTopFits: no frame is wider or higher than its terminal, with colours too, and nothing a peer or a client sent moves the cursor.
func TestTopFits(t *testing.T) {
	m := newTopModel(nil)
	seen := topSeen()
	for i := range 100 {
		seen.Machines = append(seen.Machines, &controlv1.Machine{Name: fmt.Sprintf("\x1b[31mm%d", i), Cores: 1e9, Answered: true,
			Shares: []*controlv1.Share{{Name: "x", PeerId: fmt.Sprint("x", i), Cores: 1e9}}})
		seen.Flights = append(seen.Flights, seen.Flights[0])
	}
	m.heard(topNews{answer: seen, at: whyNow})
	for _, width := range []int{1, 20, 33, 80, 300} {
		for _, height := range []int{1, 5, 12, 24, 400} {
			m.Update(tea.WindowSizeMsg{Width: width, Height: height})
			text := m.View().Content
			lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
			if len(lines) > max(height, 8) {
				t.Errorf("%d lines on %dx%d", len(lines), width, height)
			}
			for _, line := range lines {
				if got := ansi.StringWidth(line); got > max(width, leastWidth) {
					t.Errorf("a line of %d columns on %dx%d: %q", got, width, height, line)
				}
			}
			if strings.Contains(text, "\x1b[2J") || strings.Contains(text, "\x1b[31mm") {
				t.Errorf("foreign control sequences in %q", text)
			}
		}
	}
	if a, b := m.marks["1"], m.marks["2"]; a != (mark{'a', 0}) || b != (mark{'n', 1}) {
		t.Errorf("ana is %v, anton is %v", a, b)
	}
}

// TestTopColours: two initiators have two colours, whatever their letters are.
func TestTopColours(t *testing.T) {
	m := newTopModel(nil)
	m.heard(topNews{at: whyNow, answer: &controlv1.TopResponse{Queued: 1, Machines: []*controlv1.Machine{{Name: "n1", Cores: 2, Answered: true,
		Shares: []*controlv1.Share{{Name: "n1", PeerId: "1", Cores: 1}, {Name: "n2", PeerId: "2", Cores: 1}}}}}})
	want := "n1       \x1b[97;48;5;33mn\x1b[m\x1b[97;48;5;208m2\x1b[m     2 of 2\n"
	if text := m.frame(colourLook{}); !strings.Contains(text, want) || !strings.Contains(text, "; 1 action waits here") {
		t.Errorf("%q lacks %q", text, want)
	}
}

// TestTopUsage: an interval that is none is refused.
func TestTopUsage(t *testing.T) {
	if a := typed(t, "top", "--every", "1ms"); a.status != statusUsage {
		t.Errorf("%+v", a)
	}
	for _, verb := range []string{"top", "jobs"} {
		if a := typed(t, verb); a.status != statusNoNode {
			t.Errorf("%s: %+v", verb, a)
		}
	}
}
