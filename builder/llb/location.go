package llb

import (
	"bytes"
	"fmt"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

func (d *decoder) readSources() error {
	infos := d.def.GetSource().GetInfos()
	d.sources = make([]SourceFile, len(infos))
	for i, info := range infos {
		if info == nil {
			return fmt.Errorf("source file %d is missing", i)
		}
		d.sources[i] = SourceFile{
			Filename: info.Filename,
			Language: info.Language,
			Data:     bytes.Clone(info.Data),
		}
	}
	return nil
}

func (d *decoder) readLocations(v *Vertex) error {
	for _, loc := range d.def.GetSource().GetLocations()[string(v.Digest)].GetLocations() {
		i := loc.GetSourceIndex()
		if i < 0 || int(i) >= len(d.sources) {
			return fmt.Errorf("location in source file %d, of %d", i, len(d.sources))
		}
		v.Locations = append(v.Locations, Location{File: &d.sources[i], Ranges: ranges(loc.GetRanges())})
	}
	return nil
}

// lendLocations copies locations to remote sources, because the front end gives them
// none. Each gets the location of the first instruction that uses it (ADD). The error of
// a failed download can then show the line.
func lendLocations(vertices []*Vertex) {
	for _, user := range vertices {
		for _, in := range user.Inputs {
			v := in.Vertex
			if len(v.Locations) > 0 || v.Source == nil {
				continue
			}
			switch scheme, _ := SplitSource(v.Source); scheme {
			case SchemeHTTP, SchemeHTTPS, SchemeGit:
				v.Locations = user.Locations
			}
		}
	}
}

// ranges converts ranges and leaves out those without a start. A missing end is replaced
// by the start.
func ranges(list []*pb.Range) []Range {
	var out []Range
	for _, r := range list {
		if r.GetStart() == nil {
			continue
		}
		start := Position{Line: int(r.Start.Line), Character: int(r.Start.Character)}
		end := start
		if r.End != nil && r.End.Line >= r.Start.Line {
			end = Position{Line: int(r.End.Line), Character: int(r.End.Character)}
		}
		out = append(out, Range{Start: start, End: end})
	}
	return out
}

// WithSource adds the location of v in the Dockerfile to err, so that errdefs.Sources
// finds it and can print the lines. It returns err unchanged if err is nil or v has no
// location.
func WithSource(err error, v *Vertex) error {
	if err == nil || v == nil {
		return err
	}
	for _, loc := range v.Locations {
		if loc.File == nil || len(loc.Ranges) == 0 {
			continue
		}
		err = errdefs.WithSource(err, loc.source())
	}
	return err
}

func (l Location) source() *errdefs.Source {
	s := &errdefs.Source{Info: &pb.SourceInfo{
		Filename: l.File.Filename,
		Language: l.File.Language,
		Data:     l.File.Data,
	}}
	for _, r := range l.Ranges {
		s.Ranges = append(s.Ranges, &pb.Range{Start: r.Start.pb(), End: r.End.pb()})
	}
	return s
}

func (p Position) pb() *pb.Position {
	return &pb.Position{Line: int32(p.Line), Character: int32(p.Character)}
}
