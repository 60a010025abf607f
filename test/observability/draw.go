package observability

import (
	"context"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
	"time"
)

// The picture's measures, in pixels: a column and a row of Grafana's grid.
const (
	column    = 64.0
	gridRow   = 28.0
	gap       = 8.0
	head      = 54.0
	padLeft   = 54.0
	padRight  = 12.0
	padTop    = 34.0
	lineSpace = 15.0
)

// palette is that of Grafana's classic theme, as far as it is used.
var palette = []string{"#3274d9", "#e0b400", "#37872d", "#fa6400", "#8f3bb8", "#1f9ea8", "#c4162a", "#7c6a00", "#5794f2", "#b877d9", "#96d98d", "#ff9830"}

var colours = map[string]string{"green": "#37872d", "orange": "#ff780a", "red": "#c4162a"}

// Picture is a dashboard as drawn.
type Picture struct {
	SVG           string
	Width, Height int
	// Empty names the panels that got no data.
	Empty []string
}

// Draw asks Prometheus for what every panel shows from start to end, and draws
// it.
func Draw(ctx context.Context, b Board, prometheus string, start, end time.Time) (Picture, error) {
	var out Picture
	step := max((end.Sub(start) / 240).Truncate(time.Second), time.Second)
	c := &canvas{}
	height := 0.0
	for _, p := range b.Panels {
		height = max(height, float64(p.GridPos.Y+p.GridPos.H)*gridRow)
	}
	width := 24 * column
	fmt.Fprintf(&c.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="'DejaVu Sans',Helvetica,Arial,sans-serif" font-size="11">`+"\n",
		width, height+head, width, height+head)
	fmt.Fprintf(&c.b, `<rect width="%g" height="%g" fill="#f4f5f5"/>`, width, height+head)
	c.text(gap, 30, b.Title, `font-size="20" font-weight="600" fill="#1f2430"`)
	c.text(width-gap, 30, start.UTC().Format("2006-01-02 15:04")+" to "+end.UTC().Format("15:04 UTC")+
		", drawn from the dashboard's definition with data of a running stack, not by Grafana", `text-anchor="end" fill="#5b6070"`)
	for _, p := range b.Panels {
		g := p.GridPos
		box := box{float64(g.X)*column + gap/2, float64(g.Y)*gridRow + head, float64(g.W)*column - gap, float64(g.H)*gridRow - gap}
		if p.Type == "row" {
			c.text(box.x+2, box.y+16, p.Title, `font-size="14" font-weight="600" fill="#1f2430"`)
			continue
		}
		var all []Series
		var names []string
		for _, t := range p.Targets {
			// Four scrapes, as Grafana would take for an interval of ten seconds.
			got, err := QueryRange(ctx, prometheus, strings.ReplaceAll(t.Expr, "$__rate_interval", "40s"), start, end, step)
			if err != nil {
				return out, fmt.Errorf("panel %q: %w", p.Title, err)
			}
			slices.SortFunc(got, func(a, b Series) int {
				return strings.Compare(legend(t.LegendFormat, a.Labels), legend(t.LegendFormat, b.Labels))
			})
			for _, s := range got {
				all, names = append(all, s), append(names, legend(t.LegendFormat, s.Labels))
			}
		}
		if len(all) == 0 {
			out.Empty = append(out.Empty, p.Title)
		}
		fmt.Fprintf(&c.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="3" fill="#fff" stroke="#dcdfe4"/>`+"\n", box.x, box.y, box.w, box.h)
		c.text(box.x+10, box.y+18, p.Title, `font-size="12.5" font-weight="600" fill="#1f2430"`)
		switch {
		case len(all) == 0:
			c.text(box.x+box.w/2, box.y+box.h/2+6, "no data", `text-anchor="middle" fill="#8e95a3"`)
		case p.Type == "stat":
			c.stat(p, box, all[0])
		default:
			c.curves(p, box, all, names, start, end, step)
		}
	}
	c.b.WriteString("</svg>\n")
	out.SVG, out.Width, out.Height = c.b.String(), int(width), int(height+head)
	return out, nil
}

type canvas struct{ b strings.Builder }

type box struct{ x, y, w, h float64 }

func (c *canvas) text(x, y float64, text, attributes string) {
	fmt.Fprintf(&c.b, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(text))
}

// stat draws the last value in its threshold's colour, over its history.
func (c *canvas) stat(p Panel, b box, s Series) {
	last := s.Values[len(s.Values)-1]
	colour := colours["green"]
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || last >= *step.Value {
			colour = colours[step.Color]
		}
	}
	top := max(slices.Max(s.Values), 1e-9)
	var path strings.Builder
	from, to := s.Times[0], s.Times[len(s.Times)-1]
	span := max(to.Sub(from).Seconds(), 1)
	base := b.y + b.h - 1
	fmt.Fprintf(&path, "M%.1f %.1f", b.x+1, base)
	for i, v := range s.Values {
		fmt.Fprintf(&path, " L%.1f %.1f", b.x+1+(b.w-2)*s.Times[i].Sub(from).Seconds()/span, base-v/top*b.h*0.4)
	}
	fmt.Fprintf(&c.b, `<path d="%s L%.1f %.1f Z" fill="%s" fill-opacity="0.15"/>`+"\n", path.String(), b.x+b.w-1, base, colour)
	c.text(b.x+b.w/2, b.y+b.h/2+22, Format(last, p.FieldConfig.Defaults.Unit, p.FieldConfig.Defaults.Decimals),
		fmt.Sprintf(`text-anchor="middle" font-size="30" font-weight="600" fill="%s"`, colour))
}

// legendLines lays names out below a plot of that width: the line and place of each.
func legendLines(names []string, width float64) (at [][2]float64, lines int) {
	x := 0.0
	lines = 1
	for _, n := range names {
		w := 24 + 6.3*float64(len(n))
		if x+w > width && x > 0 {
			x = 0
			lines++
		}
		at = append(at, [2]float64{x, float64(lines - 1)})
		x += w
	}
	return at, lines
}

func (c *canvas) curves(p Panel, b box, all []Series, names []string, start, end time.Time, step time.Duration) {
	d := p.FieldConfig.Defaults
	at, lines := legendLines(names, b.w-20)
	plot := box{b.x + padLeft, b.y + padTop, b.w - padLeft - padRight, b.h - padTop - 24 - float64(lines)*lineSpace}
	stacked := d.Custom.Stacking.Mode == "normal"
	values := all
	if stacked {
		values = stack(all, start, end, step)
	}
	a := axisOf(d, values)
	x := func(t time.Time) float64 { return plot.x + plot.w*t.Sub(start).Seconds()/end.Sub(start).Seconds() }
	y := func(v float64) float64 { return plot.y + plot.h*(1-a.share(v)) }
	for _, tick := range a.ticks() {
		fmt.Fprintf(&c.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#e7e9ed"/>`+"\n", plot.x, y(tick), plot.x+plot.w, y(tick))
		c.text(plot.x-6, y(tick)+4, Format(tick, d.Unit, nil), `text-anchor="end" fill="#5b6070"`)
	}
	marks := 6
	if plot.w < 400 {
		marks = 3
	}
	for i := range marks + 1 {
		t := start.Add(end.Sub(start) * time.Duration(i) / time.Duration(marks))
		c.text(x(t), plot.y+plot.h+15, t.UTC().Format("15:04"), `text-anchor="middle" fill="#5b6070"`)
	}
	if d.Custom.ThresholdsStyle.Mode == "line" {
		for _, s := range d.Thresholds.Steps {
			if s.Value != nil && s.Color != "green" && *s.Value <= a.max && *s.Value >= a.min {
				fmt.Fprintf(&c.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-dasharray="5 4"/>`+"\n",
					plot.x, y(*s.Value), plot.x+plot.w, y(*s.Value), colours[s.Color])
			}
		}
	}
	for i := len(values) - 1; i >= 0; i-- { // the lowest of a stack is on top
		s, colour := values[i], palette[i%len(palette)]
		for _, run := range runs(s, 3*step) {
			var line strings.Builder
			for n := run[0]; n < run[1]; n++ {
				fmt.Fprintf(&line, "%s%.1f %.1f", map[bool]string{true: "M", false: " L"}[n == run[0]], x(s.Times[n]), y(s.Values[n]))
			}
			if d.Custom.FillOpacity > 0 {
				opacity := d.Custom.FillOpacity / 100
				if stacked {
					opacity = 0.8
				}
				fmt.Fprintf(&c.b, `<path d="%s L%.1f %.1f L%.1f %.1f Z" fill="%s" fill-opacity="%.2f"/>`+"\n", line.String(),
					x(s.Times[run[1]-1]), plot.y+plot.h, x(s.Times[run[0]]), plot.y+plot.h, colour, opacity)
			}
			fmt.Fprintf(&c.b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.6" stroke-linejoin="round"/>`+"\n", line.String(), colour)
		}
	}
	for i, name := range names {
		lx, ly := b.x+10+at[i][0], plot.y+plot.h+32+at[i][1]*lineSpace
		fmt.Fprintf(&c.b, `<rect x="%.1f" y="%.1f" width="10" height="4" rx="1" fill="%s"/>`+"\n", lx, ly-5, palette[i%len(palette)])
		c.text(lx+14, ly, name, `fill="#3a3f4b"`)
	}
}

// runs are the stretches of a series without a gap longer than max.
func runs(s Series, most time.Duration) [][2]int {
	var out [][2]int
	from := 0
	for i := 1; i <= len(s.Times); i++ {
		if i == len(s.Times) || s.Times[i].Sub(s.Times[i-1]) > most {
			out = append(out, [2]int{from, i})
			from = i
		}
	}
	return out
}

// stack puts series on top of each other; where one has no value it adds nothing.
func stack(all []Series, start, end time.Time, step time.Duration) []Series {
	out := make([]Series, len(all))
	sums := map[int64]float64{}
	for i, s := range all {
		at := map[int64]float64{}
		for n, t := range s.Times {
			at[t.Unix()] = s.Values[n]
		}
		for t := start; !t.After(end); t = t.Add(step) {
			sums[t.Unix()] += at[t.Unix()]
			out[i].Times = append(out[i].Times, t)
			out[i].Values = append(out[i].Values, sums[t.Unix()])
		}
	}
	return out
}

// axis is the range of values shown.
type axis struct {
	min, max float64
	log      bool
	unit     string
}

func axisOf(d Defaults, all []Series) axis {
	a := axis{min: math.Inf(1), max: math.Inf(-1), log: d.Custom.ScaleDistribution.Type == "log", unit: d.Unit}
	for _, s := range all {
		a.min, a.max = min(a.min, slices.Min(s.Values)), max(a.max, slices.Max(s.Values))
	}
	if a.log {
		a.min = math.Pow(10, math.Floor(math.Log10(max(a.min, 1))))
		a.max = math.Pow(10, math.Ceil(math.Log10(max(a.max, a.min*10))))
		return a
	}
	if d.Min != nil {
		a.min = *d.Min
	}
	a.max = max(a.max*1.08, a.min+1e-6)
	if a.max <= a.min+1e-6 {
		a.max = a.min + 1
	}
	if d.Max != nil {
		a.max = *d.Max
	}
	return a
}

// share is how far up a value lies, from 0 to 1.
func (a axis) share(v float64) float64 {
	v = min(max(v, a.min), a.max)
	if a.log {
		return (math.Log10(max(v, a.min)) - math.Log10(a.min)) / (math.Log10(a.max) - math.Log10(a.min))
	}
	return (v - a.min) / (a.max - a.min)
}

func (a axis) ticks() []float64 {
	var out []float64
	if a.log {
		for v := a.min; v <= a.max*1.001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	base := 10.0
	if a.unit == "bytes" {
		base = 2
	}
	raw := (a.max - a.min) / 4
	if a.unit == "s" && raw > 30 {
		base = 60
	}
	size := math.Pow(base, math.Floor(math.Log(raw)/math.Log(base)))
	if base == 10 {
		for _, m := range []float64{1, 2, 5, 10} {
			if size*m >= raw {
				size *= m
				break
			}
		}
	} else if base == 60 {
		for _, m := range []float64{1, 2, 5, 10, 30, 60, 120, 360, 720, 1440, 2880, 10080} {
			if size = 60 * m; size >= raw {
				break
			}
		}
	} else if size < raw {
		size *= 2
	}
	for v := math.Ceil(a.min/size) * size; v <= a.max; v += size {
		out = append(out, v)
	}
	return out
}

// Format writes a value in one of Grafana's units.
func Format(v float64, unit string, decimals *int) string {
	number := func(v float64, suffix string) string {
		digits := 0
		switch a := math.Abs(v); {
		case decimals != nil:
			digits = *decimals
		case a != 0 && a < 1:
			digits = min(2-int(math.Floor(math.Log10(a))), 6)
		case a < 10 && v != math.Trunc(v):
			digits = 2
		case a < 100 && v != math.Trunc(v):
			digits = 1
		}
		text := fmt.Sprintf("%.*f", digits, v)
		if decimals == nil && strings.Contains(text, ".") {
			text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
		}
		return text + suffix
	}
	scaled := func(v, by float64, suffixes []string) string {
		i := 0
		for math.Abs(v) >= by && i < len(suffixes)-1 {
			v /= by
			i++
		}
		return number(v, suffixes[i])
	}
	switch unit {
	case "s":
		switch a := math.Abs(v); {
		case a == 0:
			return "0 s"
		case a < 1:
			decimals = nil
			return number(math.Round(v*1e5)/1e2, " ms")
		case a < 120:
			return number(v, " s")
		case a < 7200:
			return number(v/60, " min")
		case a < 172800:
			return number(v/3600, " h")
		default:
			return number(v/86400, " d")
		}
	case "bytes":
		return scaled(v, 1024, []string{" B", " KiB", " MiB", " GiB", " TiB"})
	case "percentunit":
		return number(v*100, "%")
	case "reqps":
		return scaled(v, 1000, []string{" req/s", "K req/s", "M req/s"})
	case "ops":
		return scaled(v, 1000, []string{" /s", "K /s", "M /s"})
	}
	if math.Abs(v) < 10_000 {
		return number(v, "")
	}
	return scaled(v, 1000, []string{"", " K", " M", " G"})
}
