package main

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

func (s scene) String() string {
	weather := "calm"
	if s.disturbed {
		weather = "disturbed"
	}
	return fmt.Sprintf("%d nodes, %s", s.nodes, weather)
}

// writeTable writes makespan and p99 of every policy, as multiples of the clairvoyant's, which are in seconds.
func writeTable(w io.Writer, rows []row) error {
	var b strings.Builder
	b.WriteString("Makespan / p99 from ready to done; clairvoyant in seconds, the others as multiples of it.\n\n| nodes | actions |")
	for _, p := range policies {
		b.WriteString(" " + p.name + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(policies)) + "\n")
	for _, r := range rows {
		best := r.outcomes[0]
		fmt.Fprintf(&b, "| %s | %d | %.1f / %.1f |", r.scene, best.actions, best.makespan, best.p99)
		for _, o := range r.outcomes[1:] {
			fmt.Fprintf(&b, " %.2f / %.2f |", o.makespan/best.makespan, o.p99/best.p99)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// panel is one diagram: a figure against nodes, both logarithmic.
type panel struct {
	Title      string
	X, Y       int
	Lines      []curve
	Across, Up []tick
}

type curve struct {
	Name, Colour, Points string
	X, Y                 float64 // of the name
}

type tick struct {
	At   float64
	Text string
}

const (
	panelWide = 430
	panelHigh = 300
)

var colours = []string{"#000000", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f"}

// newPanel draws one figure of the rows of one weather.
func newPanel(title string, rows []row, figure func(outcome) float64) panel {
	p := panel{Title: title}
	low, high := math.Inf(1), 0.0
	for _, r := range rows {
		for _, o := range r.outcomes {
			low, high = min(low, figure(o)), max(high, figure(o))
		}
	}
	low, high = math.Log10(low)-0.05, math.Log10(high)+0.05
	first, last := math.Log10(float64(rows[0].nodes)), math.Log10(float64(rows[len(rows)-1].nodes))
	x := func(nodes int) float64 {
		return (math.Log10(float64(nodes)) - first) / max(last-first, 1e-9) * panelWide
	}
	y := func(v float64) float64 { return panelHigh * (1 - (math.Log10(v)-low)/(high-low)) }
	for i, policy := range policies {
		c := curve{Name: policy.name, Colour: colours[i], X: float64(15 + 105*(i%4)), Y: float64(panelHigh + 40 + 18*(i/4))}
		for _, r := range rows {
			c.Points += fmt.Sprintf("%.1f,%.1f ", x(r.nodes), y(figure(r.outcomes[i])))
		}
		p.Lines = append(p.Lines, c)
	}
	for _, r := range rows {
		p.Across = append(p.Across, tick{x(r.nodes), fmt.Sprint(r.nodes)})
	}
	for e := math.Floor(low); e <= high; e++ {
		for _, m := range []float64{1, 2, 5} {
			if v := m * math.Pow(10, e); math.Log10(v) >= low && math.Log10(v) <= high {
				p.Up = append(p.Up, tick{y(v), fmt.Sprintf("%g", v)})
			}
		}
	}
	return p
}

// writePicture draws makespan and p99 against nodes, calm and disturbed.
func writePicture(w io.Writer, rows []row) error {
	var panels []panel
	half := len(rows) / 2
	for i, weather := range []string{"calm", "disturbed"} {
		part := rows[i*half : (i+1)*half]
		panels = append(panels,
			newPanel("makespan, seconds ("+weather+")", part, func(o outcome) float64 { return o.makespan }),
			newPanel("p99 from ready to done, seconds ("+weather+")", part, func(o outcome) float64 { return o.p99 }))
	}
	for i := range panels {
		panels[i].X, panels[i].Y = 60+(i%2)*(panelWide+80), 40+(i/2)*(panelHigh+110)
	}
	return picture.Execute(w, panels)
}

var picture = template.Must(template.New("svg").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="1040" height="860" font-family="sans-serif" font-size="12">
<rect width="1040" height="860" fill="white"/>
{{range .}}<g transform="translate({{.X}},{{.Y}})">
<text x="0" y="-14" font-size="14">{{.Title}}</text>
<rect width="430" height="300" fill="none" stroke="#888"/>
{{range .Up}}<line x1="0" x2="430" y1="{{.At}}" y2="{{.At}}" stroke="#ddd"/><text x="-6" y="{{.At}}" text-anchor="end" dominant-baseline="middle">{{.Text}}</text>
{{end}}{{range .Across}}<text x="{{.At}}" y="316" text-anchor="middle">{{.Text}}</text>
{{end}}{{range .Lines}}<polyline points="{{.Points}}" fill="none" stroke="{{.Colour}}" stroke-width="2"/>
<text x="{{.X}}" y="{{.Y}}" fill="{{.Colour}}">{{.Name}}</text>
{{end}}</g>
{{end}}</svg>
`))
