package main

import (
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

// Report is everything one run measured.
type Report struct {
	Ours, Theirs string // names of the subjects
	Note         string // what stands beside the node, and why
	Machine      string
	Results      []Result
	OursPeak     float64 // MiB
	TheirsPeak   float64
}

// WriteTable writes the report as a Markdown table.
func (r Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s.\n\n", r.Machine, r.Note)
	fmt.Fprintf(&b, "| what | unit | %s (min..max) | beside | figure (min..max) | times better |\n|---|---|---:|---|---:|---:|\n", r.Ours)
	for _, result := range r.Results {
		beside := r.Theirs
		if result.Row.Against != "" {
			beside = result.Row.Against
		}
		if result.Theirs.Absent {
			beside = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", result.Row.Name, result.Row.Unit,
			span(result.Ours), beside, span(result.Theirs), times(result.Ratio()))
	}
	fmt.Fprintf(&b, "| peak memory of the whole run | MiB | %s | %s | %s | %s |\n", number(r.OursPeak), r.Theirs,
		number(r.TheirsPeak), times(safeRatio(r.TheirsPeak, r.OursPeak)))
	_, err := io.WriteString(w, b.String())
	return err
}

func safeRatio(a, b float64) float64 {
	if a == 0 || b == 0 {
		return 0
	}
	return a / b
}

func span(f Figure) string {
	if f.Absent {
		return ""
	}
	return fmt.Sprintf("%s (%s..%s)", number(f.Median), number(f.Min), number(f.Max))
}

// number keeps three significant digits, and every digit of larger numbers.
func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func times(ratio float64) string {
	if ratio == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", ratio)
}

// bar is one line of the picture.
type bar struct {
	Label, Value  string
	Y, Width      float64
	Better        bool
	TextY, ValueX float64
}

const (
	labelWidth = 330.0
	barSpace   = 380.0
	lineHeight = 24.0
)

// WriteSVG draws the ratios on a logarithmic scale around 1: to the right is better than what stands beside.
func (r Report) WriteSVG(w io.Writer) error {
	view := struct {
		Title         string
		Width, Height float64
		Axis, Bottom  float64
		Bars          []bar
	}{Title: r.Ours + " beside " + r.Theirs + ": times better", Width: labelWidth + barSpace + 90, Axis: labelWidth}
	for _, result := range r.Results {
		ratio := result.Ratio()
		if ratio == 0 || result.Row.Against != "" {
			continue
		}
		y := 50 + lineHeight*float64(len(view.Bars))
		width := min(math.Abs(math.Log2(ratio))/6, 1) * barSpace
		view.Bars = append(view.Bars, bar{Label: result.Row.Name, Value: times(ratio), Y: y, Width: max(width, 1),
			Better: ratio >= 1, TextY: y + 13, ValueX: labelWidth + max(width, 1) + 6})
	}
	view.Bottom = 50 + lineHeight*float64(len(view.Bars))
	view.Height = view.Bottom + 20
	return picture.Execute(w, view)
}

var picture = template.Must(template.New("svg").Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="12" y="26" font-size="16" font-weight="bold" fill="#1f2328">{{.Title}}</text>
<line x1="{{.Axis}}" y1="40" x2="{{.Axis}}" y2="{{.Bottom}}" stroke="#8c959f"/>
{{range .Bars}}<text x="12" y="{{.TextY}}" fill="#1f2328">{{.Label}}</text>
<rect x="{{$.Axis}}" y="{{.Y}}" width="{{.Width}}" height="17" fill="{{if .Better}}#1a7f64{{else}}#c4432b{{end}}"/>
<text x="{{.ValueX}}" y="{{.TextY}}" fill="#1f2328">{{.Value}}</text>
{{end}}</svg>
`))
