package lab

import (
	"fmt"
	"math"

	"github.com/tagstream/tagstream/test/report"
)

// Plots are the pictures that the report shows, by the name of their file.
func (r *Report) Plots() map[string][]byte {
	return map[string][]byte{
		"latency.svg": r.depthPlot("Latency of a page, milliseconds (median)", func(c PageCost) float64 { return c.Latency.Seconds() * 1000 }),
		"rows.svg":    r.depthPlot("Index rows read for a page", func(c PageCost) float64 { return float64(c.Entries) }),
		"drift.svg":   r.driftPlot(),
		"both.svg":    r.bothPlot(),
	}
}

// depthPlot shows a cost by depth, for the lists of 1, 5 and 20 tags that are long.
func (r *Report) depthPlot(title string, cost func(PageCost) float64) []byte {
	var panels []panel
	for _, d := range r.Depths[1:4] {
		p := panel{title: d.Name}
		for _, way := range []struct{ name, colour string }{{byOffset, orange}, {byAny, yellow}, {byUs, blue}} {
			c := curve{name: way.name, colour: way.colour}
			for _, at := range d.Pages {
				c.x, c.y = append(c.x, float64(at.Page)), append(c.y, cost(at.By[way.name]))
			}
			p.curves = append(p.curves, c)
		}
		panels = append(panels, p)
	}
	return lineChart(title, "page", axisNumber, panels)
}

func (r *Report) driftPlot() []byte {
	var groups []barGroup
	for _, list := range []struct {
		name string
		all  []Reading
	}{{"posts", r.Drift.Readings}, {"tags", r.TagDrift.Readings}} {
		for _, one := range list.all {
			groups = append(groups, barGroup{list.name + ", " + one.Way, []float64{float64(one.Again), float64(one.Missed)}})
		}
	}
	return barChart("Rows that stayed throughout, and were shown again or missed (logarithmic)", []string{"shown again", "missed"}, []string{yellow, orange}, groups)
}

func (r *Report) bothPlot() []byte {
	var groups []barGroup
	for _, b := range r.Boths {
		g := barGroup{name: b.Name + ", from " + b.From}
		for _, way := range []string{byProbe, byMerge, byUs} {
			g.values = append(g.values, float64(b.By[way].Work()))
		}
		groups = append(groups, g)
	}
	return barChart("All of two tags: work until the page is full (logarithmic)", []string{byProbe, byMerge, byUs}, []string{grey, yellow, blue}, groups)
}

// axisNumber is a power of ten.
func axisNumber(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.1g", v)
	}
	return report.Count(int(math.Round(v)))
}
