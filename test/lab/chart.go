package lab

import (
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/tagstream/tagstream/test/report"
)

// Colours that stay apart for readers who do not see all of them (Okabe and Ito).
const (
	blue   = "#0072b2"
	orange = "#d55e00"
	yellow = "#e69f00"
	grey   = "#8c8c8c"
)

// svg is a picture under way.
type svg struct {
	b             strings.Builder
	width, height float64
}

func newSVG(width, height float64, title string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(&s.b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" font-family="system-ui,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif" font-size="12" role="img" aria-label="%s">`+"\n",
		width, height, width, height, html.EscapeString(title))
	fmt.Fprintf(&s.b, `<rect width="%g" height="%g" fill="#fff"/>`+"\n", width, height)
	s.text(16, 26, title, `font-size="15" font-weight="600" fill="#1a1a1a"`)
	return s
}

func (s *svg) text(x, y float64, text, attributes string) {
	fmt.Fprintf(&s.b, `<text x="%.1f" y="%.1f" %s>%s</text>`+"\n", x, y, attributes, html.EscapeString(text))
}

func (s *svg) line(x1, y1, x2, y2 float64, attributes string) {
	fmt.Fprintf(&s.b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" %s/>`+"\n", x1, y1, x2, y2, attributes)
}

func (s *svg) bytes() []byte { return []byte(s.b.String() + "</svg>\n") }

// legend writes what the colours mean, from x on.
func (s *svg) legend(x, y float64, names, colours []string) {
	for i, name := range names {
		fmt.Fprintf(&s.b, `<rect x="%.1f" y="%.1f" width="12" height="12" rx="2" fill="%s"/>`+"\n", x, y-10, colours[i])
		s.text(x+17, y, name, `fill="#333"`)
		x += 40 + 6.6*float64(len(name))
	}
}

// curve is one line of a panel.
type curve struct {
	name, colour string
	x, y         []float64
}

// panel is one pair of axes.
type panel struct {
	title  string
	curves []curve
}

// lineChart draws panels side by side, both axes logarithmic and the same for all.
func lineChart(title, xLabel string, unit func(float64) string, panels []panel) []byte {
	const width, height, top, bottom, left, right, gap = 960.0, 380.0, 84.0, 50.0, 64.0, 16.0, 26.0
	s := newSVG(width, height, title)
	names, colours := []string{}, []string{}
	for _, c := range panels[0].curves {
		names, colours = append(names, c.name), append(colours, c.colour)
	}
	s.legend(16, 50, names, colours)
	xLo, xHi, yLo, yHi := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, p := range panels {
		for _, c := range p.curves {
			for i := range c.x {
				xLo, xHi = min(xLo, c.x[i]), max(xHi, c.x[i])
				yLo, yHi = min(yLo, c.y[i]), max(yHi, c.y[i])
			}
		}
	}
	yLo, yHi = math.Pow(10, math.Floor(math.Log10(yLo))), math.Pow(10, math.Ceil(math.Log10(yHi)))
	each := (width - left - right - gap*float64(len(panels)-1)) / float64(len(panels))
	for i, p := range panels {
		x0 := left + float64(i)*(each+gap)
		xAt := func(x float64) float64 { return x0 + 10 + (each-20)*logPart(x, xLo, xHi) }
		yAt := func(y float64) float64 { return height - bottom - (height-bottom-top)*logPart(y, yLo, yHi) }
		for y := yLo; y <= yHi*1.01; y *= 10 {
			s.line(x0, yAt(y), x0+each, yAt(y), `stroke="#e4e4e4"`)
			if i == 0 {
				s.text(x0-8, yAt(y)+4, unit(y), `text-anchor="end" fill="#555"`)
			}
		}
		for x := xLo; x <= xHi*1.01; x *= 10 {
			s.line(xAt(x), height-bottom, xAt(x), height-bottom+4, `stroke="#999"`)
			s.text(xAt(x), height-bottom+18, report.Count(int(math.Round(x))), `text-anchor="middle" fill="#555"`)
		}
		s.line(x0, height-bottom, x0+each, height-bottom, `stroke="#999"`)
		s.text(x0+each/2, height-12, xLabel, `text-anchor="middle" fill="#555"`)
		s.text(x0+each/2, top-14, p.title, `text-anchor="middle" font-weight="600" fill="#333"`)
		for _, c := range p.curves {
			var points []string
			for i := range c.x {
				points = append(points, fmt.Sprintf("%.1f,%.1f", xAt(c.x[i]), yAt(c.y[i])))
			}
			fmt.Fprintf(&s.b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2.2" stroke-linejoin="round"/>`+"\n", strings.Join(points, " "), c.colour)
			for _, p := range points {
				x, y, _ := strings.Cut(p, ",")
				fmt.Fprintf(&s.b, `<circle cx="%s" cy="%s" r="3.2" fill="%s"/>`+"\n", x, y, c.colour)
			}
		}
	}
	return s.bytes()
}

func logPart(v, lo, hi float64) float64 {
	if hi <= lo {
		return 0.5
	}
	return (math.Log10(v) - math.Log10(lo)) / (math.Log10(hi) - math.Log10(lo))
}

// barGroup is bars that belong together; each bar has the series' colour.
type barGroup struct {
	name   string
	values []float64
}

// barChart draws groups of lying bars with their values. The axis is logarithmic; a zero has no bar.
func barChart(title string, names, colours []string, groups []barGroup) []byte {
	const width, left, right, top, bar, between = 960.0, 330.0, 80.0, 66.0, 14.0, 12.0
	group := bar*float64(len(names)) + between
	height := top + group*float64(len(groups)) + 10
	s := newSVG(width, height, title)
	s.legend(16, 50, names, colours)
	hi := 10.0
	for _, g := range groups {
		for _, v := range g.values {
			hi = max(hi, v)
		}
	}
	// A bar of one is still to be seen.
	at := func(v float64) float64 { return (width - left - right) * math.Log10(v*2) / math.Log10(hi*2) }
	for i, g := range groups {
		y := top + group*float64(i)
		s.text(left-10, y+bar*float64(len(g.values))/2+4, g.name, `text-anchor="end" fill="#333"`)
		for j, v := range g.values {
			length := 0.0
			if v > 0 {
				length = at(v)
			}
			fmt.Fprintf(&s.b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="1.5" fill="%s"/>`+"\n", left, y+bar*float64(j)+1, length, bar-2, colours[j])
			s.text(left+length+6, y+bar*float64(j)+bar-3, report.Count(int(v)), `font-size="11" fill="#444"`)
		}
	}
	s.line(left, top-4, left, height-10-between/2, `stroke="#999"`)
	return s.bytes()
}
