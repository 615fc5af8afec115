package evaluate

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// Sizes of a figure, in pixels.
const (
	plotWidth  = 640
	plotHeight = 420
	plotLeft   = 150
	plotRight  = 20
	plotTop    = 40
	plotBottom = 60
)

// colours of the systems: distinguishable also with colour blindness.
var colours = map[string]string{
	keyLeerstroom: "#0072b2", keyElo: "#d55e00", keyEloFixed: "#cc79a7", keyEloTree: "#009e73", keyItemMean: "#7f7f7f",
}

// writePlots draws the reliability curves and the log-losses.
func (r *Report) writePlots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of plots: %w", err)
	}
	var problems error
	for name, text := range map[string]string{"reliability.svg": r.reliabilityPlot(), "logloss.svg": r.lossPlot()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			problems = errors.Join(problems, fmt.Errorf("write plot: %w", err))
		}
	}
	return problems
}

// figure builds an SVG picture with one plotting area.
type figure struct {
	text           strings.Builder
	x0, x1, y0, y1 float64 // values at the edges of the plotting area
}

func newFigure(title string, x0, x1, y0, y1 float64) *figure {
	f := &figure{x0: x0, x1: x1, y0: y0, y1: y1}
	fmt.Fprintf(&f.text, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", plotWidth, plotHeight, plotWidth, plotHeight)
	f.text.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	f.label(plotLeft, 24, "start", title)
	return f
}

func (f *figure) end() string { return f.text.String() + "</svg>\n" }

// at returns the place of a value in pixels.
func (f *figure) at(x, y float64) (px, py float64) {
	return plotLeft + (x-f.x0)/(f.x1-f.x0)*(plotWidth-plotLeft-plotRight),
		plotHeight - plotBottom - (y-f.y0)/(f.y1-f.y0)*(plotHeight-plotTop-plotBottom)
}

func (f *figure) label(px, py float64, anchor, text string) {
	text = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
	fmt.Fprintf(&f.text, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", px, py, anchor, text)
}

func (f *figure) line(xa, ya, xb, yb float64, colour string, width float64) {
	ax, ay := f.at(xa, ya)
	bx, by := f.at(xb, yb)
	fmt.Fprintf(&f.text, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%.1f"/>`+"\n", ax, ay, bx, by, colour, width)
}

func (f *figure) dot(x, y, radius float64, colour string) {
	px, py := f.at(x, y)
	fmt.Fprintf(&f.text, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s"/>`+"\n", px, py, radius, colour)
}

// reliabilityPlot draws what was predicted against what happened; the area of a
// dot is the number of answers.
func (r *Report) reliabilityPlot() string {
	f := newFigure("Share of right answers by predicted probability", 0, 1, 0, 1)
	for k := range 6 {
		v := float64(k) / 5
		f.line(v, 0, v, 1, "#e0e0e0", 1)
		f.line(0, v, 1, v, "#e0e0e0", 1)
		x, y := f.at(v, 0)
		f.label(x, y+18, "middle", fmt.Sprintf("%.1f", v))
		x, y = f.at(0, v)
		f.label(x-8, y+4, "end", fmt.Sprintf("%.1f", v))
	}
	f.line(0, 0, 1, 1, "#808080", 1)
	for i := len(r.Systems) - 1; i >= 0; i-- { // our own on top
		s := &r.Systems[i]
		for k, b := range s.Reliability {
			if k > 0 {
				f.line(s.Reliability[k-1].Predicted, s.Reliability[k-1].Observed, b.Predicted, b.Observed, colours[s.Key], 1.5)
			}
			f.dot(b.Predicted, b.Observed, 1+20*math.Sqrt(float64(b.Answers)/float64(r.Answers)/math.Pi), colours[s.Key])
		}
		f.label(8, plotTop+float64(20*i)+20, "start", fmt.Sprintf("%s %.3f", s.Name, s.ECE))
		fmt.Fprintf(&f.text, `<rect x="0" y="%d" width="4" height="12" fill="%s"/>`+"\n", plotTop+20*i+10, colours[s.Key])
	}
	f.label(8, plotTop+5, "start", "system, ECE")
	x, y := f.at(0.5, 0)
	f.label(x, y+40, "middle", "predicted")
	return f.end()
}

// lossPlot draws the log-loss of every system as a bar.
func (r *Report) lossPlot() string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range r.Systems {
		low, high = min(low, s.LogLoss), max(high, s.LogLoss)
	}
	margin := max(0.2*(high-low), 0.001)
	low, high = low-margin, high+margin
	n := float64(len(r.Systems))
	f := newFigure("Log-loss per answer, nats (lower is better; the axis does not start at 0)", low, high, n, 0)
	for i, s := range r.Systems {
		xa, ya := f.at(low, float64(i)+0.2)
		xb, yb := f.at(s.LogLoss, float64(i)+0.8)
		fmt.Fprintf(&f.text, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", xa, ya, xb-xa, yb-ya, colours[s.Key])
		f.label(xa-8, (ya+yb)/2+4, "end", s.Name)
		f.label(xb+4, (ya+yb)/2+4, "start", fmt.Sprintf("%.4f", s.LogLoss))
	}
	return f.end()
}

// bandsPlot draws percentiles of learners with their bands, and where the learners
// truly stand.
func bandsPlot(examples []BandExample) string {
	f := newFigure("60 simulated learners at one goal: percentile, 90 % band, truth", 0, float64(len(examples)+1), 0, 100)
	for k := range 5 {
		v := float64(25 * k)
		f.line(0, v, float64(len(examples)+1), v, "#e0e0e0", 1)
		x, y := f.at(0, v)
		f.label(x-8, y+4, "end", fmt.Sprintf("%.0f", v))
	}
	for i, e := range examples {
		x := float64(i + 1)
		colour := "#9ecae1"
		if e.Truth < e.Low || e.Truth > e.High {
			colour = "#d55e00"
		}
		f.line(x, e.Low, x, e.High, colour, 4)
		f.dot(x, e.Percentile, 2.5, colours[keyLeerstroom])
		f.dot(x, e.Truth, 2.5, "black")
	}
	for i, entry := range []struct{ colour, text string }{
		{colours[keyLeerstroom], "percentile told"}, {"black", "true percentile"}, {"#9ecae1", "90 % band"}, {"#d55e00", "band misses truth"},
	} {
		f.label(14, plotTop+float64(20*i)+10, "start", entry.text)
		fmt.Fprintf(&f.text, `<rect x="0" y="%d" width="8" height="10" fill="%s"/>`+"\n", plotTop+20*i+1, entry.colour)
	}
	x, y := f.at(float64(len(examples)+1)/2, 0)
	f.label(x, y+30, "middle", "learners in the order of the percentile told")
	return f.end()
}
