package main

import (
	"bytes"
	"fmt"
	"image/color"
	"os"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Colors of the lines. They can be distinguished with color blindness too.
var (
	ours   = color.RGBA{R: 0, G: 114, B: 178, A: 255}
	theirs = color.RGBA{R: 213, G: 94, B: 0, A: 255}
	grey   = color.RGBA{R: 170, G: 170, B: 170, A: 255}
)

// plotScale writes a plot of all axes as SVG.
func plotScale(path string, rep scaleReport) error {
	panels, err := drawPanels(rep)
	if err != nil {
		return err
	}
	rows := (len(panels) + columns - 1) / columns
	canvas := vgsvg.New(26*vg.Centimeter, vg.Length(rows)*9*vg.Centimeter+vg.Centimeter)
	arrange(draw.New(canvas), rep, panels, rows)
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	// The layout uses this font, but it may be missing where the plot is viewed.
	data := bytes.ReplaceAll(svg.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return os.WriteFile(path, data, 0o644)
}

const columns = 2

// drawPanels makes a panel for each axis.
func drawPanels(rep scaleReport) ([]*plot.Plot, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	var panels []*plot.Plot
	for _, a := range axes() {
		var points []scalePoint
		for _, p := range rep.Results {
			if p.Axis == a.name {
				points = append(points, p)
			}
		}
		if len(points) == 0 {
			continue
		}
		p, err := panel(a, points)
		if err != nil {
			return nil, err
		}
		panels = append(panels, p)
	}
	return panels, nil
}

// arrange draws the panels in a grid. It prints the builders and the machine at the
// bottom.
func arrange(whole draw.Canvas, rep scaleReport, panels []*plot.Plot, rows int) {
	whole.SetColor(color.White)
	whole.Fill(whole.Rectangle.Path())
	style := plot.New().X.Label.TextStyle
	style.XAlign, style.Font.Size = draw.XLeft, vg.Points(8)
	for i, text := range []string{strings.Join(rep.Builders, "; "), rep.Machine.String()} {
		whole.FillText(style, vg.Point{X: 4 * vg.Millimeter, Y: vg.Length(3+4*i) * vg.Millimeter}, text)
	}
	tiles := draw.Tiles{
		Rows: rows, Cols: columns, PadTop: 4 * vg.Millimeter, PadBottom: 14 * vg.Millimeter,
		PadLeft: 4 * vg.Millimeter, PadRight: 8 * vg.Millimeter, PadX: 12 * vg.Millimeter, PadY: 8 * vg.Millimeter,
	}
	for i, p := range panels {
		p.Draw(tiles.At(whole, i%columns, i/columns))
	}
}

// panel draws the lines of one axis, with logarithmic scales. Behind them, it draws a
// line for time that is proportional to the work.
func panel(a axis, points []scalePoint) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = a.what
	p.X.Label.Text, p.Y.Label.Text = a.unit, "seconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.Y.Tick.Marker = decades{}
	p.Legend.Top, p.Legend.Left = true, true
	var ticks plot.ConstantTicks
	for _, n := range a.points {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: fmt.Sprint(n)})
	}
	lines := map[string]plotter.XYs{}
	var names []string
	least, most := points[0].Median, points[0].Median
	for _, q := range points {
		if lines[q.line()] == nil {
			names = append(names, q.line())
		}
		lines[q.line()] = append(lines[q.line()], plotter.XY{X: float64(q.N), Y: q.Median})
		least, most = min(least, q.Median), max(most, q.Median)
	}
	if last := points[len(points)-1].N; last > a.points[len(a.points)-1] {
		ticks = append(ticks, plot.Tick{Value: float64(last), Label: fmt.Sprint(last)})
	}
	p.X.Tick.Marker = ticks
	if !a.same {
		if err := proportional(p, lines["shale, cold"]); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		line, dots, err := plotter.NewLinePoints(lines[name])
		if err != nil {
			return nil, err
		}
		line.Color = theirs
		if strings.HasPrefix(name, "shale") {
			line.Color = ours
		}
		line.Width = vg.Points(1.6)
		if strings.HasSuffix(name, "warm") {
			line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
		}
		dots.Color, dots.Shape, dots.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(line, dots)
		p.Legend.Add(strings.TrimPrefix(name, "~"), line)
	}
	p.X.Min, p.X.Max = float64(a.points[0])*0.8, ticks[len(ticks)-1].Value*1.25
	p.Y.Min, p.Y.Max = least/1.6, most*6
	return p, nil
}

// proportional draws time that is proportional to the work, starting at the first point
// of from.
func proportional(p *plot.Plot, from plotter.XYs) error {
	if len(from) < 2 {
		return nil
	}
	first, last := from[0], from[len(from)-1]
	line, err := plotter.NewLine(plotter.XYs{first, {X: last.X, Y: first.Y * last.X / first.X}})
	if err != nil {
		return err
	}
	line.Color, line.Width = grey, vg.Points(1)
	p.Add(line)
	p.Legend.Add("as the work", line)
	return nil
}

// decades places labeled ticks at 0.01, 0.1, 1 and so on, and unlabeled ticks between
// them.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(least, most float64) []plot.Tick {
	var ticks []plot.Tick
	for at := 0.001; at <= most; at *= 10 {
		for i := 1.0; i < 10; i++ {
			v := at * i
			if v < least || v > most {
				continue
			}
			t := plot.Tick{Value: v}
			if i == 1 {
				t.Label = fmt.Sprintf("%.4g", at)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}
