package llb

import (
	"errors"
	"fmt"
	"path"

	"github.com/moby/buildkit/solver/pb"
)

// NoInput is the input index of the empty file system. NoOutput is the output index of a
// mount or file action whose content is discarded.
const (
	NoInput  = -1
	NoOutput = -1
)

// HasOutput reports whether the mount becomes a result of its operation. Secret and ssh
// mounts have output index 0, which must be ignored.
func HasOutput(m *pb.Mount) bool {
	return m.MountType == pb.MountType_BIND && m.Output >= 0
}

func execOutputs(op *pb.ExecOp) int {
	n := 0
	for _, m := range op.Mounts {
		if HasOutput(m) {
			n++
		}
	}
	return n
}

func checkExec(v *Vertex) error {
	op := v.Exec
	if op.Meta == nil || len(op.Meta.Args) == 0 {
		return errors.New("exec without a command")
	}
	if err := noNUL(op.Meta.Args...); err != nil {
		return fmt.Errorf("command: %w", err)
	}
	if err := noNUL(op.Meta.Env...); err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	if !path.IsAbs(op.Meta.Cwd) {
		return fmt.Errorf("working directory %q is not absolute", op.Meta.Cwd)
	}
	if err := noNUL(op.Meta.Cwd, op.Meta.User, op.Meta.Hostname); err != nil {
		return err
	}
	if op.Meta.ProxyEnv == nil {
		op.Meta.ProxyEnv = &pb.ProxyEnv{}
	}
	if _, ok := pb.NetMode_name[int32(op.Network)]; !ok {
		return fmt.Errorf("unknown network mode %d", op.Network)
	}
	if _, ok := pb.SecurityMode_name[int32(op.Security)]; !ok {
		return fmt.Errorf("unknown security mode %d", op.Security)
	}
	for _, s := range op.Secretenv {
		if s.Name == "" {
			return fmt.Errorf("secret %q has no variable", s.ID)
		}
	}
	return checkMounts(v)
}

func checkMounts(v *Vertex) error {
	roots := 0
	outputs := make([]bool, execOutputs(v.Exec))
	for _, m := range v.Exec.Mounts {
		if !path.IsAbs(m.Dest) {
			// The front end does not make the paths of secrets and agents absolute.
			m.Dest = path.Join(v.Exec.Meta.Cwd, m.Dest)
		}
		if err := checkMount(m, len(v.Inputs)); err != nil {
			return fmt.Errorf("mount %q: %w", m.Dest, err)
		}
		if path.Clean(m.Dest) == pb.RootMount {
			if m.MountType != pb.MountType_BIND {
				return fmt.Errorf("mount %q: %s cannot be the root", m.Dest, m.MountType)
			}
			roots++
		}
		if !HasOutput(m) {
			continue
		}
		if m.Output >= int64(len(outputs)) || outputs[m.Output] {
			return fmt.Errorf("mount %q: output %d is out of range or given twice", m.Dest, m.Output)
		}
		outputs[m.Output] = true
	}
	if roots != 1 {
		return fmt.Errorf("exec has %d root mounts", roots)
	}
	return nil
}

func checkMount(m *pb.Mount, inputs int) error {
	if err := noNUL(m.Dest, m.Selector); err != nil {
		return err
	}
	if !inRange(m.Input, inputs) {
		return fmt.Errorf("input %d, of %d", m.Input, inputs)
	}
	if m.Output < NoOutput {
		return fmt.Errorf("output %d", m.Output)
	}
	if m.ResultID != "" {
		return errors.New("mounts by result are not supported")
	}
	if _, ok := pb.MountContentCache_name[int32(m.ContentCache)]; !ok {
		return fmt.Errorf("unknown content cache mode %d", m.ContentCache)
	}
	return checkMountType(m)
}

func checkMountType(m *pb.Mount) error {
	switch m.MountType {
	case pb.MountType_BIND:
	case pb.MountType_TMPFS:
		if m.TmpfsOpt == nil {
			m.TmpfsOpt = &pb.TmpfsOpt{}
		}
		if m.TmpfsOpt.Size < 0 {
			return fmt.Errorf("size %d", m.TmpfsOpt.Size)
		}
	case pb.MountType_CACHE:
		if m.CacheOpt == nil || m.CacheOpt.ID == "" {
			return errors.New("cache without an id")
		}
		if _, ok := pb.CacheSharingOpt_name[int32(m.CacheOpt.Sharing)]; !ok {
			return fmt.Errorf("unknown sharing mode %d", m.CacheOpt.Sharing)
		}
	case pb.MountType_SECRET:
		if m.SecretOpt == nil || m.SecretOpt.ID == "" {
			return errors.New("secret without an id")
		}
	case pb.MountType_SSH:
		if m.SSHOpt == nil {
			return errors.New("ssh without options")
		}
	default:
		return fmt.Errorf("unknown mount type %d", m.MountType)
	}
	return nil
}
