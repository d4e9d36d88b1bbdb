// Package plot draws the figures that docs/ shows: panels of lines or bars, one above
// the other, as one SVG.
package plot

import (
	"fmt"
	"image/color"
	"os"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Point is one place on a line.
type Point struct{ X, Y float64 }

// Series is one line with its name in the legend; an empty name leaves it out of there.
type Series struct {
	Name   string
	Points []Point
}

// Panel is one diagram: of lines, or of groups of bars.
type Panel struct {
	Title, X, Y string
	// LogX and LogY make an axis logarithmic; no value may then be 0.
	LogX, LogY bool
	Lines      []Series
	// Bars are groups of bars side by side: one group for each of Labels, in it one bar
	// for each of Bars.
	Labels []string
	Bars   []Bar
	// Level is a dashed line to compare with, such as 1 where values are ratios; 0 draws
	// none.
	Level float64
}

// Bar is one bar of every group.
type Bar struct {
	Name   string
	Values []float64 // one for each label
}

// colours are told apart in greyscale and by the colour-blind (Okabe and Ito's).
var colours = []color.RGBA{
	{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255},
	{230, 159, 0, 255}, {86, 180, 233, 255}, {0, 0, 0, 255}, {240, 228, 66, 255},
}

const (
	width  = 18 * vg.Centimeter
	height = 8 * vg.Centimeter // of one panel
)

// Write draws the panels into an SVG file, and makes its folder.
func Write(file string, panels ...Panel) error {
	if len(panels) == 0 {
		return fmt.Errorf("plot: %s would be empty", file)
	}
	canvas := vgsvg.New(width, height*vg.Length(len(panels)))
	rows := make([][]*plot.Plot, len(panels))
	for i, panel := range panels {
		p, err := panel.plot()
		if err != nil {
			return fmt.Errorf("plot: %s: %w", panel.Title, err)
		}
		rows[i] = []*plot.Plot{p}
	}
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: vg.Points(12), PadTop: vg.Points(4), PadBottom: vg.Points(4), PadLeft: vg.Points(4), PadRight: vg.Points(8)}
	for i, row := range plot.Align(rows, tiles, draw.New(canvas)) {
		rows[i][0].Draw(row[0])
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func (panel Panel) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = panel.Title, panel.X, panel.Y
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	if panel.LogX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	if panel.LogY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	for i, s := range panel.Lines {
		if len(s.Points) == 0 {
			return nil, fmt.Errorf("%s has no points", s.Name)
		}
		points := make(plotter.XYs, len(s.Points))
		for n, at := range s.Points {
			points[n].X, points[n].Y = at.X, at.Y
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
		line.Color, line.Width = colours[i%len(colours)], vg.Points(1.5)
		p.Add(line)
		if s.Name != "" {
			p.Legend.Add(s.Name, line)
		}
	}
	bar := vg.Points(60 / float64(max(1, len(panel.Bars))))
	for i, b := range panel.Bars {
		chart, err := plotter.NewBarChart(plotter.Values(b.Values), bar)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", b.Name, err)
		}
		chart.Color, chart.LineStyle.Width = colours[i%len(colours)], 0
		chart.Offset = bar * vg.Length(float64(i)-float64(len(panel.Bars)-1)/2)
		p.Add(chart)
		p.Legend.Add(b.Name, chart)
	}
	if len(panel.Labels) > 0 {
		p.NominalX(panel.Labels...)
	}
	if panel.Level != 0 {
		level := plotter.NewFunction(func(float64) float64 { return panel.Level })
		level.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		p.Add(level)
	}
	// Room for the legend above what is drawn.
	if !panel.LogY {
		p.Y.Max *= 1.25
	} else {
		p.Y.Max *= 2
	}
	return p, nil
}
