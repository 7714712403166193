package llb

import (
	"errors"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shale-build/shale/internal/redact"
)

// ErrInvalid is wrapped by every error of Decode.
var ErrInvalid = errors.New("invalid build graph")

// Decode checks def and returns it as a graph. If def is nil or empty, the Target of the
// graph is empty. Errors wrap ErrInvalid. If the position of the invalid operation in the
// Dockerfile is known, the error contains it (see WithSource). def may come from an
// untrusted source; Decode keeps no reference to it.
func Decode(def *pb.Definition) (*Graph, error) {
	if def == nil || len(def.Def) == 0 {
		return &Graph{}, nil
	}
	d := &decoder{def: def, ops: make(map[digest.Digest]*pb.Op, len(def.Def))}
	g, err := d.decode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return g, nil
}

type decoder struct {
	def     *pb.Definition
	ops     map[digest.Digest]*pb.Op
	sources []SourceFile
}

func (d *decoder) decode() (*Graph, error) {
	head, err := d.unmarshal()
	if err != nil {
		return nil, err
	}
	if err := d.readSources(); err != nil {
		return nil, err
	}
	graph := &Graph{Sources: d.sources}
	if head == nil {
		return graph, nil
	}
	order, err := sorted(d.ops, digest.Digest(head.Digest))
	if err != nil {
		return nil, err
	}
	vertices := make(map[digest.Digest]*Vertex, len(order))
	for _, dgst := range order {
		v, err := d.vertex(dgst, vertices)
		if err != nil {
			return nil, err
		}
		vertices[dgst] = v
		graph.Vertices = append(graph.Vertices, v)
	}
	lendLocations(graph.Vertices)
	graph.Target, err = output(head, vertices)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return graph, nil
}

// unmarshal fills d.ops and returns the input of the last entry. That entry holds no
// operation, only the edge to the result. If it has no input, the result is empty.
func (d *decoder) unmarshal() (*pb.Input, error) {
	last := len(d.def.Def) - 1
	for i, dt := range d.def.Def {
		op := new(pb.Op)
		if err := op.Unmarshal(dt); err != nil {
			return nil, fmt.Errorf("unmarshal operation %d: %w", i, err)
		}
		if err := rejectUnknown(op.ProtoReflect()); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		if i == last {
			return terminal(op)
		}
		d.ops[digest.FromBytes(dt)] = op
	}
	return nil, nil
}

func terminal(op *pb.Op) (*pb.Input, error) {
	if op.Op != nil {
		return nil, fmt.Errorf("the last entry is an operation (%T), not the result", op.Op)
	}
	switch len(op.Inputs) {
	case 0:
		return nil, nil
	case 1:
		return op.Inputs[0], nil
	default:
		return nil, fmt.Errorf("the result has %d inputs", len(op.Inputs))
	}
}

// rejectUnknown returns an error if a message has fields that the compiled-in schema does
// not have. A newer front end may set such a field to change the meaning of the
// operation.
func rejectUnknown(m protoreflect.Message) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields unknown to this version", m.Descriptor().Name())
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil || fd.IsMap():
			// All maps of operations hold only strings, except that of BuildOp. BuildOp
			// is refused completely.
		case fd.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = rejectUnknown(v.List().Get(i).Message())
			}
		default:
			err = rejectUnknown(v.Message())
		}
		return err == nil
	})
	return err
}

func (d *decoder) vertex(dgst digest.Digest, done map[digest.Digest]*Vertex) (*Vertex, error) {
	op := d.ops[dgst]
	v := &Vertex{Digest: dgst, Platform: platform(op.Platform)}
	if err := d.readMetadata(v); err != nil {
		return nil, fmt.Errorf("operation %s: %w", dgst, err)
	}
	err := fill(v, op, done)
	if v.Name == "" {
		v.Name = fallbackName(v)
	}
	// Names are displayed, logged and stored in shared caches, so they must not contain
	// passwords.
	v.Name = redact.URLs(v.Name)
	if err != nil {
		return nil, WithSource(fmt.Errorf("%s: %w", v.Name, err), v)
	}
	return v, nil
}

func fill(v *Vertex, op *pb.Op, done map[digest.Digest]*Vertex) error {
	for i, in := range op.Inputs {
		out, err := output(in, done)
		if err != nil {
			return fmt.Errorf("input %d: %w", i, err)
		}
		v.Inputs = append(v.Inputs, out)
	}
	if f := op.GetConstraints().GetFilter(); len(f) > 0 {
		return fmt.Errorf("worker constraints %q are not supported", f)
	}
	switch kind := op.Op.(type) {
	case *pb.Op_Source:
		v.Source = kind.Source
		return checkSource(v)
	case *pb.Op_Exec:
		v.Exec = kind.Exec
		return checkExec(v)
	case *pb.Op_File:
		v.File = kind.File
		return checkFile(v)
	case *pb.Op_Merge:
		v.Merge = kind.Merge
		return checkMerge(v)
	case nil:
		return errors.New("entry without an operation")
	default:
		return fmt.Errorf("operation %T is not supported", kind)
	}
}

// output returns the vertex output that an edge refers to.
func output(in *pb.Input, done map[digest.Digest]*Vertex) (Output, error) {
	v := done[digest.Digest(in.Digest)]
	if v == nil {
		return Output{}, fmt.Errorf("no operation %q", in.Digest)
	}
	if in.Index < 0 || in.Index >= int64(v.Outputs()) {
		return Output{}, fmt.Errorf("output %d of %q, which has %d", in.Index, v.Name, v.Outputs())
	}
	return Output{Vertex: v, Index: int(in.Index)}, nil
}

func platform(p *pb.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	return &ocispec.Platform{
		Architecture: p.Architecture,
		OS:           p.OS,
		OSVersion:    p.OSVersion,
		OSFeatures:   p.OSFeatures,
		Variant:      p.Variant,
	}
}

// readMetadata copies the metadata of the operation from the definition.
func (d *decoder) readMetadata(v *Vertex) error {
	if err := d.readLocations(v); err != nil {
		return err
	}
	md := d.def.Metadata[string(v.Digest)]
	if md == nil {
		return nil
	}
	if err := rejectUnknown(md.ProtoReflect()); err != nil {
		return err
	}
	caps := pb.Caps.CapSet(pb.Caps.All())
	for id := range md.Caps {
		if err := caps.Supports(capID(id)); err != nil {
			return fmt.Errorf("unsupported capability %q: %w", id, err)
		}
	}
	md = md.CloneVT()
	v.Name = md.Description[CustomName]
	v.Description = md.Description
	v.IgnoreCache = md.IgnoreCache
	v.Resources = md.LinuxResources
	if pg := md.ProgressGroup; pg != nil {
		v.Group = Group{ID: pg.Id, Name: redact.URLs(pg.Name), Weak: pg.Weak}
	}
	return nil
}

// inRange reports whether i is NoInput or a valid index below n.
func inRange(i int64, n int) bool {
	return i >= NoInput && i < int64(n)
}
