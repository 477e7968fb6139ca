package main

import (
	"time"

	tea "charm.land/bubbletea/v2"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// topNews is what asking the node brought.
type topNews struct {
	answer *controlv1.TopResponse
	err    error
	at     time.Time
}

// topTick says that it is time to ask again.
type topTick struct{}

// topModel is what top shows. It is a tea.Model; it reads no clock and asks nobody but through ask.
type topModel struct {
	ask           func() tea.Msg // gives a topNews
	width, height int            // of the terminal; 0: not known

	answer  *controlv1.TopResponse // the last one; nil: none yet
	at      time.Time              // when it came
	rates   bool                   // in and out are known
	in, out float64                // bytes a second
	err     error                  // of the last question
	failed  time.Time              // the first failure since the last answer
	now     time.Time              // of the last news
	marks   map[string]mark        // of initiators by peer id
}

func newTopModel(ask func() tea.Msg) *topModel {
	return &topModel{ask: ask, marks: map[string]mark{}}
}

// Init implements tea.Model.
func (m *topModel) Init() tea.Cmd { return m.ask }

// Update implements tea.Model.
func (m *topModel) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case tea.KeyPressMsg:
		switch message.String() {
		case "q", "esc", "ctrl+c":
			return m, tea.Quit
		}
	case topNews:
		m.heard(message)
		return m, tea.Tick(topEvery, func(time.Time) tea.Msg { return topTick{} })
	case topTick:
		return m, m.ask
	}
	return m, nil
}

// View implements tea.Model.
func (m *topModel) View() tea.View {
	view := tea.NewView(m.frame(colourLook{}))
	view.AltScreen = true
	view.WindowTitle = "buildmesh top"
	return view
}

// heard takes news in.
func (m *topModel) heard(news topNews) {
	m.now = news.at
	if news.err != nil {
		if m.err == nil {
			m.failed = news.at
		}
		m.err = news.err
		return
	}
	m.rates = false
	if seconds := news.at.Sub(m.at).Seconds(); m.answer != nil && seconds > 0 {
		in, out := news.answer.BytesIn-m.answer.BytesIn, news.answer.BytesOut-m.answer.BytesOut
		if in >= 0 && out >= 0 { // else the node was started anew
			m.rates, m.in, m.out = true, float64(in)/seconds, float64(out)/seconds
		}
	}
	m.answer, m.at, m.err = news.answer, news.at, nil
	for _, machine := range news.answer.Machines {
		for _, s := range machine.Shares {
			m.mark(s)
		}
	}
}

// mark stands for an initiator as long as top runs.
type mark struct {
	letter rune // the first of its name that is not taken, else any
	number int  // in the order they were seen; its colour
}

// mark gives an initiator's mark, a new one when it is seen for the first time.
func (m *topModel) mark(s *controlv1.Share) mark {
	if is, known := m.marks[s.PeerId]; known {
		return is
	}
	is := mark{'+', len(m.marks)} // more initiators than letters
	taken := map[rune]bool{}
	for _, other := range m.marks {
		taken[other.letter] = true
	}
	for _, l := range s.Name + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		if (l >= 'a' && l <= 'z' || l >= 'A' && l <= 'Z' || l >= '0' && l <= '9') && !taken[l] {
			is.letter = l
			break
		}
	}
	m.marks[s.PeerId] = is
	return is
}
