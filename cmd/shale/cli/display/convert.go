package display

import (
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/progress"
)

func convertVertex(v progress.Vertex) *client.Vertex {
	out := &client.Vertex{
		Digest:    v.Digest,
		Inputs:    v.Inputs,
		Name:      v.Name,
		Started:   v.Started,
		Completed: v.Completed,
		Cached:    v.Cached,
		Error:     v.Error,
	}
	if v.Group != "" {
		out.ProgressGroup = &pb.ProgressGroup{Id: v.Group, Name: v.Group}
	}
	return out
}

func convertStatus(s progress.Status) *client.VertexStatus {
	return &client.VertexStatus{
		ID:        s.ID,
		Vertex:    s.Vertex,
		Name:      s.Name,
		Total:     s.Total,
		Current:   s.Current,
		Timestamp: s.Timestamp,
		Started:   s.Started,
		Completed: s.Completed,
	}
}

func convertLog(l progress.Log) *client.VertexLog {
	return &client.VertexLog{Vertex: l.Vertex, Stream: l.Stream, Data: l.Data, Timestamp: l.Timestamp}
}

func convertWarning(w progress.Warning) *client.VertexWarning {
	out := &client.VertexWarning{Vertex: w.Vertex, Level: w.Level, Short: []byte(w.Short), URL: w.URL}
	for _, line := range w.Detail {
		out.Detail = append(out.Detail, []byte(line))
	}
	if w.File != "" || w.Source != nil {
		out.SourceInfo = &pb.SourceInfo{Filename: w.File, Language: "Dockerfile", Data: w.Source}
	}
	for _, r := range w.Ranges {
		out.Range = append(out.Range, &pb.Range{
			Start: &pb.Position{Line: int32(r.Line)},
			End:   &pb.Position{Line: int32(r.EndLine)},
		})
	}
	return out
}
