package solve

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/fileop"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// visitor receives all values that the result of an operation depends on, always in the
// same order. The cache key is a hash of these values, and --explain compares them with
// those of the previous build. Both use the same walk, so that they cannot disagree.
type visitor interface {
	// part receives one part of the operation itself. Its kind and name are shown to the
	// user. The kind is empty if the part follows from other parts, for example a count.
	part(kind explain.Kind, name string, fields ...field)
	// input receives input number i of the operation, the kind and name of the part that
	// uses it, and the paths that the operation reads of it.
	input(i int, kind explain.Kind, name string, reads []local.Selection) error
}

// field writes one value in the encoding of cache keys.
type field func(*cache.Hasher)

func text(s string) field         { return func(h *cache.Hasher) { h.String(s) } }
func raw(b []byte) field          { return func(h *cache.Hasher) { h.Bytes(b) } }
func list(l []string) field       { return func(h *cache.Hasher) { h.Strings(l) } }
func flag(b bool) field           { return func(h *cache.Hasher) { h.Bool(b) } }
func number[N integer](n N) field { return func(h *cache.Hasher) { h.Int(int64(n)) } }

type integer interface {
	~int | ~int32 | ~int64 | ~uint32
}

// noInput stands for an input that is not set.
var noInput = text("none")

// kindOf returns the kind of the operation of v, or "" if the operation has no key of its
// own.
func kindOf(v *llb.Vertex) string {
	switch {
	case v.Exec != nil:
		return "exec"
	case v.File != nil:
		return "file"
	case v.Merge != nil:
		return "merge"
	}
	return ""
}

// describe passes all parts and inputs of the operation of v to the visitor to.
func describe(v *llb.Vertex, to visitor) error {
	d := description{vertex: v, to: to}
	switch {
	case v.Exec != nil:
		return d.exec()
	case v.File != nil:
		return d.file()
	case v.Merge != nil:
		return d.merge()
	}
	return fmt.Errorf("no cache key for the operation of %q", v.Name)
}

type description struct {
	vertex *llb.Vertex
	to     visitor
}

// exec leaves out the values that must not be part of the key: the values of proxy
// variables, the addresses of extra hosts, resource limits, and the location and content
// of cache mounts. BuildKit leaves out the same values (solver/llbsolver/ops/exec.go).
func (d description) exec() error {
	op := d.vertex.Exec
	meta := op.GetMeta()
	d.to.part(explain.Command, "", list(meta.GetArgs()))
	d.to.part("", "", number(len(meta.GetEnv())))
	for _, kv := range meta.GetEnv() {
		name, _, _ := strings.Cut(kv, "=")
		d.to.part(explain.Variable, name, text(kv))
	}
	d.to.part(explain.Setting, "working directory", text(meta.GetCwd()))
	d.to.part(explain.Setting, "user", text(meta.GetUser()))
	d.to.part(explain.Setting, "hostname", text(meta.GetHostname()))
	d.to.part(explain.Setting, "network", number(op.GetNetwork()))
	d.to.part(explain.Setting, "security mode", number(op.GetSecurity()))
	d.to.part("", "", number(len(meta.GetExtraHosts())))
	for _, host := range meta.GetExtraHosts() {
		d.to.part(explain.Setting, "extra host "+host.GetHost(), text(host.GetHost()))
	}
	d.to.part("", "", number(len(op.GetSecretenv())))
	for _, s := range op.GetSecretenv() {
		d.to.part(explain.Setting, "secret variable "+s.GetName(), text(s.GetID()), text(s.GetName()), flag(s.GetOptional()))
	}
	d.to.part("", "", number(len(op.GetCdiDevices())))
	for _, device := range op.GetCdiDevices() {
		d.to.part(explain.Setting, "device "+device.GetName(), text(device.GetName()), flag(device.GetOptional()))
	}
	d.platform()
	d.to.part("", "", number(len(op.GetMounts())))
	for _, m := range op.GetMounts() {
		if err := d.mount(m); err != nil {
			return err
		}
	}
	return nil
}

func (d description) mount(m *pb.Mount) error {
	fields := []field{text(m.GetDest()), number(m.GetMountType()), flag(m.GetReadonly()), number(m.GetOutput())}
	secret := m.GetMountType() == pb.MountType_SECRET || m.GetMountType() == pb.MountType_SSH
	if secret {
		s, a := m.GetSecretOpt(), m.GetSSHOpt()
		fields = append(fields, text(s.GetID()), text(a.GetID()), flag(s.GetOptional()), flag(a.GetOptional()),
			number(s.GetUid()), number(s.GetGid()), number(s.GetMode()), number(a.GetUid()), number(a.GetGid()), number(a.GetMode()))
	} else if m.GetInput() < 0 {
		fields = append(fields, noInput)
	}
	d.to.part(explain.Mount, m.GetDest(), fields...)
	if secret || m.GetInput() < 0 {
		return nil
	}
	return d.to.input(int(m.GetInput()), explain.Mount, m.GetDest(), []local.Selection{{Path: m.GetSelector()}})
}

func (d description) file() error {
	desc, err := fileop.Key(d.vertex.File)
	if err != nil {
		return fmt.Errorf("describe %q: %w", d.vertex.Name, err)
	}
	d.to.part(explain.Command, "", raw(desc))
	d.platform()
	d.to.part("", "", number(len(d.vertex.Inputs)))
	for i := range d.vertex.Inputs {
		reads, err := fileop.Selections(d.vertex.File, i)
		if err != nil {
			return err
		}
		if err := d.to.input(i, explain.Command, "", reads); err != nil {
			return err
		}
	}
	return nil
}

func (d description) merge() error {
	d.to.part("", "", number(len(d.vertex.Merge.GetInputs())))
	for _, in := range d.vertex.Merge.GetInputs() {
		if in.GetInput() < 0 {
			d.to.part("", "", noInput)
			continue
		}
		if err := d.to.input(int(in.GetInput()), explain.Command, "", []local.Selection{{Path: "/"}}); err != nil {
			return err
		}
	}
	return nil
}

func (d description) platform() {
	p := d.vertex.Platform
	if p == nil {
		d.to.part(explain.Setting, "platform", text(""))
		return
	}
	d.to.part(explain.Setting, "platform", text(p.OS), text(p.Architecture), text(p.Variant), text(p.OSVersion))
}
