package exec

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/runtime/sandbox"
)

// secret mounts a secret as a file. If an optional secret was not given to the build, no
// file is mounted.
func (s *mountSet) secret(i int, m *pb.Mount) error {
	opt := m.GetSecretOpt()
	value, err := s.exec.Secrets.Get(opt.GetID())
	if errors.Is(err, secrets.ErrNotFound) && opt.GetOptional() {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := s.memory()
	if err != nil {
		return err
	}
	mode := fs.FileMode(opt.GetMode()).Perm()
	path := filepath.Join(dir, strconv.Itoa(i))
	if err := s.writeSecret(path, value, opt.GetUid(), opt.GetGid(), mode); err != nil {
		return fmt.Errorf("secret %s: %w", opt.GetID(), err)
	}
	s.masked = append(s.masked, value)
	s.list = append(s.list, sandbox.Mount{
		Type: sandbox.Bind, Source: path, Target: m.GetDest(), ReadOnly: true, NoSUID: true, NoExec: mode&0o111 == 0, InMemory: true,
	})
	return nil
}

func (s *mountSet) writeSecret(path string, value []byte, uid, gid uint32, mode fs.FileMode) error {
	if err := os.WriteFile(path, value, 0o600); err != nil {
		return err
	}
	if err := s.exec.own(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// secretEnv returns the variables that hold secrets. If an optional secret was not given
// to the build, its variable is empty, as with docker.
func (s *mountSet) secretEnv() ([]string, error) {
	var env []string
	for _, v := range s.vertex.Exec.GetSecretenv() {
		value, err := s.exec.Secrets.Get(v.GetID())
		if err != nil && (!v.GetOptional() || !errors.Is(err, secrets.ErrNotFound)) {
			return nil, err
		}
		if bytes.IndexByte(value, 0) >= 0 {
			return nil, fmt.Errorf("secret %s: a value with a NUL byte cannot be the variable %s; mount it as a file", v.GetID(), v.GetName())
		}
		s.masked = append(s.masked, value)
		env = append(env, v.GetName()+"="+string(value))
	}
	return env, nil
}
