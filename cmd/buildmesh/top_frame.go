package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/buildmesh/buildmesh/node/human"
	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"github.com/charmbracelet/x/ansi"
)

// look is how the parts of a frame appear.
type look interface {
	slot(number int, text string) string // text of an initiator's colour
	faint(text string) string
	title(text string) string
	alarm(text string) string
}

// plainLook has no colours.
type plainLook struct{}

func (plainLook) slot(_ int, text string) string { return text }
func (plainLook) faint(text string) string       { return text }
func (plainLook) title(text string) string       { return text }
func (plainLook) alarm(text string) string       { return text }

// colourLook is for terminals. What they cannot show, bubbletea leaves out.
type colourLook struct{}

// palette is colours that can be told apart on light and on dark ground.
var palette = []ansi.IndexedColor{33, 208, 70, 163, 37, 172, 99, 160, 28, 130}

func (colourLook) slot(number int, text string) string {
	return ansi.Style{}.ForegroundColor(ansi.BrightWhite).BackgroundColor(palette[number%len(palette)]).Styled(text)
}
func (colourLook) faint(text string) string { return ansi.Style{}.Faint().Styled(text) }
func (colourLook) title(text string) string { return ansi.Style{}.Bold().Styled(text) }
func (colourLook) alarm(text string) string {
	return ansi.Style{}.Bold().ForegroundColor(ansi.BrightRed).Styled(text)
}

// Bounds of a frame.
const (
	plainWidth = 100 // where there is no terminal
	leastWidth = 20
	mostCells  = 32 // for the slots of one machine
)

// frame is everything top shows, each line with its end.
func (m *topModel) frame(l look) string {
	width := m.width
	if width <= 0 {
		width = plainWidth
	}
	width = max(width, leastWidth)
	var lines []string
	if m.err != nil {
		lines = append(lines, l.alarm(fmt.Sprintf("%v (for %s)", m.err, human.Age(m.now.Sub(m.failed)))))
	}
	if m.answer == nil {
		if m.err == nil {
			lines = append(lines, "asking the node...")
		}
		return ended(lines, width)
	}
	lines = append(lines, l.title(m.headline()), m.trafficLine())
	if c := m.answer.Actions; c != nil {
		lines = append(lines, fmt.Sprintf("actions: %s ran, %s failed, %s from the cache", human.Count(c.Succeeded+c.Failed), human.Count(c.Failed), human.Count(c.Cached)))
	}
	lines = append(lines, "")
	machines, flights := m.machineLines(l, width), m.flightLines(l)
	if m.height > 0 { // the slots come first, the actions get the rest
		left := m.height - len(lines)
		machines = cutLines(machines, max(left-4, 2), "machines")
		flights = cutLines(flights, max(left-len(machines), 2), "actions")
	}
	return ended(append(append(lines, machines...), flights...), width)
}

// ended cuts each line to a width and ends it.
func ended(lines []string, width int) string {
	var out strings.Builder
	for _, line := range lines {
		out.WriteString(strings.TrimRight(ansi.Truncate(line, width, "…"), " ") + "\n")
	}
	return out.String()
}

// cutLines cuts a block to a number of lines and says how many are left out.
func cutLines(lines []string, most int, of string) []string {
	if len(lines) <= most {
		return lines
	}
	return append(lines[:most-1:most-1], fmt.Sprintf("and %d more %s", len(lines)-most+1, of))
}

// headline is the mesh in one line.
func (m *topModel) headline() string {
	a := m.answer
	busy, cores := 0.0, 0.0
	for _, one := range a.Machines {
		used, _ := busyOf(one)
		busy, cores = busy+used, cores+one.Cores
	}
	text := "this node alone"
	switch {
	case a.Mesh != "" && len(a.Machines) == 1:
		text = "mesh " + clean(a.Mesh) + ", this node alone"
	case a.Mesh != "":
		text = fmt.Sprintf("mesh %s, %d machines", clean(a.Mesh), len(a.Machines))
	}
	text += fmt.Sprintf("; %s of %s cores busy", human.Cores(tenths(busy)), human.Cores(tenths(cores)))
	if a.Queued > 0 {
		waiting := human.Count(a.Queued) + " actions wait here"
		if a.Queued == 1 {
			waiting = "1 action waits here"
		}
		text += "; " + waiting
	}
	return text
}

// trafficLine is the bytes to and from members.
func (m *topModel) trafficLine() string {
	rate := func(bytes float64) string {
		if !m.rates {
			return ""
		}
		return human.Bytes(int64(bytes)) + "/s, "
	}
	return fmt.Sprintf("in %s%s  out %s%s", rate(m.in), human.Bytes(m.answer.BytesIn), rate(m.out), human.Bytes(m.answer.BytesOut))
}

// busyOf is how many cores of a machine are used, and by whom is known for how many of them.
func busyOf(one *controlv1.Machine) (busy, known float64) {
	for _, s := range one.Shares {
		known += s.Cores
	}
	if one.Answered {
		return known, known
	}
	return max(one.Cores-one.Free, 0), 0
}

// machineLines is the machines with their slots, and what the letters mean.
func (m *topModel) machineLines(l look, width int) []string {
	names := []string{"MACHINE"}
	for _, one := range m.answer.Machines {
		name := clean(one.Name)
		if one.Self {
			name += " (here)"
		}
		names = append(names, ansi.Truncate(name, max(width/4, 8), "…"))
	}
	pad(names)
	cells := min(max(width-ansi.StringWidth(names[0])-20, 4), mostCells)
	lines, slots, notes := make([]string, len(names)), []string{"SLOTS"}, []string{"USED"}
	for _, one := range m.answer.Machines {
		slots = append(slots, m.slots(l, one, cells))
		busy, _ := busyOf(one)
		note := fmt.Sprintf("%s of %s", human.Cores(tenths(busy)), human.Cores(tenths(one.Cores)))
		if one.Cores == 0 && one.State != "" {
			note = clean(one.State)
		} else if one.State != "" {
			note += ", " + clean(one.State)
		}
		notes = append(notes, note)
	}
	pad(slots)
	for i := range names {
		lines[i] = names[i] + "  " + slots[i] + "  " + notes[i]
	}
	lines[0] = l.faint(strings.TrimRight(lines[0], " "))
	return append(lines, m.legend(l)...)
}

// slots draws a machine's cores: a letter for each used one, a dot for a free one, ? for one used by nobody knows whom.
func (m *topModel) slots(l look, one *controlv1.Machine, cells int) string {
	each := math.Max(1, math.Ceil(one.Cores/float64(cells))) // cores to a cell
	total := int(math.Ceil(one.Cores / each))
	var out strings.Builder
	drawn := 0
	draw := func(cores float64, paint func(string) string, letter string) {
		n := min(int(math.Ceil(cores/each-1e-9)), total-drawn)
		if n > 0 {
			out.WriteString(paint(strings.Repeat(letter, n)))
			drawn += n
		}
	}
	for _, s := range one.Shares {
		mark := m.mark(s)
		draw(s.Cores, func(text string) string { return l.slot(mark.number, text) }, string(mark.letter))
	}
	if busy, known := busyOf(one); busy > known {
		draw(busy-known, l.faint, "?")
	}
	draw(one.Cores, l.faint, "·")
	return out.String()
}

// legend tells which letter is which initiator.
func (m *topModel) legend(l look) []string {
	type initiator struct {
		name  string
		mark  mark
		cores float64
	}
	var all []initiator
	for _, one := range m.answer.Machines {
		for _, s := range one.Shares {
			mark := m.mark(s)
			if i := slices.IndexFunc(all, func(x initiator) bool { return x.mark.letter == mark.letter }); i >= 0 {
				all[i].cores += s.Cores
			} else {
				all = append(all, initiator{clean(s.Name), mark, s.Cores})
			}
		}
	}
	if len(all) == 0 {
		return []string{""}
	}
	slices.SortStableFunc(all, func(a, b initiator) int { return strings.Compare(a.name, b.name) })
	text := "for:"
	for _, x := range all {
		text += fmt.Sprintf("  %s %s %s", l.slot(x.mark.number, string(x.mark.letter)), x.name, human.Cores(tenths(x.cores)))
	}
	return []string{text, ""}
}

// flightLines is the executions of this node's clients.
func (m *topModel) flightLines(l look) []string {
	if len(m.answer.Flights) == 0 {
		return []string{"no action of this node's clients is under way"}
	}
	columns := [4][]string{{"STAGE"}, {"AGE"}, {"ON"}, {"ACTION"}}
	for _, f := range m.answer.Flights {
		what := strings.TrimSpace(clean(f.Mnemonic) + " " + clean(f.Target) + clean(f.Words))
		columns[0] = append(columns[0], f.Stage)
		columns[1] = append(columns[1], human.Age(f.Age.AsDuration().Truncate(100*time.Millisecond)))
		columns[2] = append(columns[2], dash(clean(f.Worker)))
		columns[3] = append(columns[3], dash(what))
	}
	lines := make([]string, len(columns[0]))
	for i, column := range columns {
		if i < len(columns)-1 {
			pad(column)
		}
		for row := range column {
			lines[row] += strings.Repeat("  ", min(i, 1)) + column[row]
		}
	}
	lines[0] = l.faint(lines[0])
	return lines
}

// pad makes all texts as wide as the widest.
func pad(texts []string) {
	width := 0
	for _, t := range texts {
		width = max(width, ansi.StringWidth(t))
	}
	for i, t := range texts {
		texts[i] = t + strings.Repeat(" ", width-ansi.StringWidth(t))
	}
}

// clean makes a text of others fit for one line of a terminal.
func clean(s string) string { return cutText(ansi.Strip(s), 120) }

// tenths rounds to tenths.
func tenths(f float64) float64 { return math.Round(f*10) / 10 }
