package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/overlay/plain"
	"github.com/shale-build/shale/runtime/inplace"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/runtime/userns"
)

// isolation is the way in which steps are isolated from the machine. Its values are
// those of --isolation and SHALE_ISOLATION.
type isolation string

const (
	isolationAuto     isolation = "auto"
	isolationUserns   isolation = "userns"
	isolationRecorded isolation = "recorded"
	isolationInPlace  isolation = "inplace"
)

// modeInPlace is the mode of a process that has not entered a namespace, because its
// steps run in place.
const modeInPlace userns.Mode = "in place"

const (
	isolationName = "isolation"
	isolationEnv  = "SHALE_ISOLATION"
)

func isolationFlag() cli.Flag {
	return &cli.StringFlag{
		Name: isolationName, Value: string(isolationAuto), EnvVars: []string{isolationEnv},
		Usage: "run steps by `WAY`: userns (containers in a user namespace), recorded (the same with one id, see --ownership), inplace (in the container around, as root of it) or auto",
	}
}

// chosenIsolation returns the value of the flag --isolation. For commands without this
// flag, and if the flag is not set, it returns the value of SHALE_ISOLATION.
func chosenIsolation(c *cli.Context) (isolation, error) {
	value := os.Getenv(isolationEnv)
	if c.IsSet(isolationName) {
		value = c.String(isolationName)
	}
	switch value {
	case "", "auto", "default", "oci":
		return isolationAuto, nil
	case string(isolationUserns), string(isolationRecorded), string(isolationInPlace):
		return isolation(value), nil
	}
	return "", usageError(c, fmt.Sprintf("unknown isolation %q: it is auto, userns, recorded or inplace", value))
}

// enter moves the process into the namespaces in which it builds, or prepares it to
// build in place. It calls userns.Enter or inplace.Enter. Each of them starts the
// program again, and enter returns in the new program.
func (i isolation) enter(ctx context.Context, logger *slog.Logger) (userns.Info, error) {
	inside := inplace.Inside()
	if i == isolationAuto && !inside && probe.Doubtful() {
		why, err := probe.Namespaces(ctx, Version)
		if err != nil {
			return userns.Info{}, err
		}
		inside = why != nil
		if inside {
			if err := os.Setenv(envWhyInPlace, why.Error()); err != nil {
				return userns.Info{}, err
			}
		}
	}
	if !inside && i != isolationInPlace {
		opts := userns.Options{Logger: logger}
		if i == isolationRecorded {
			opts.Force = userns.ModeSingle
		}
		return userns.Enter(ctx, opts)
	}
	if os.Geteuid() != 0 {
		return userns.Info{}, errors.New("to build in place is root's: start the container as root (runAsUser: 0, user: root)")
	}
	if err := inplace.Allowed(); err != nil {
		return userns.Info{}, err
	}
	if !probe.HasCapability(unix.CAP_SYS_CHROOT) {
		return userns.Info{}, errors.New("to build in place takes CAP_SYS_CHROOT, to unpack images safely: give it to the container (securityContext.capabilities.add: [SYS_CHROOT]; CRI-O leaves it out)")
	}
	if err := inplace.Enter(); err != nil {
		return userns.Info{}, err
	}
	reason := os.Getenv(envWhyInPlace)
	if reason == "" {
		reason = "asked for"
	}
	info := userns.Here(modeInPlace)
	info.Reason = reason
	return info, os.Unsetenv(envWhyInPlace)
}

// envWhyInPlace is the variable that passes the reason for building in place to the
// program that inplace.Enter starts.
const envWhyInPlace = "_SHALE_WHY_INPLACE"

// place prepares a build in place. The root directory of the container becomes that of
// the steps, except for the paths that the build itself reads and writes. authFiles are
// files of logins that the user named; place conceals them from steps. If the build is
// not in place, place only sets NoMounts.
func (s *services) place(session *session, opts *builder.Options, authFiles ...string) error {
	s.deps.NoMounts = session.layers.Native
	if !session.inPlace() {
		return nil
	}
	root, err := inplace.OpenRoot(protectedPaths(session, opts), session.logger)
	if err != nil {
		return err
	}
	s.deps.Place, s.deps.Own = root, root.Own
	closeRest := s.close
	s.close = func() error { return errors.Join(root.Close(), closeRest()) }
	if err := root.Conceal(loginFiles(opts, authFiles, os.Getenv)); err != nil {
		return err
	}
	return root.Guard()
}

// protectedPaths returns the paths that must stay where they are while steps run: the
// store and the local build contexts.
func protectedPaths(session *session, opts *builder.Options) []string {
	paths := []string{session.store.GraphRoot(), session.store.RunRoot()}
	contexts := []string{opts.Context}
	for _, value := range opts.Contexts {
		contexts = append(contexts, value)
	}
	for _, c := range contexts {
		if c == "" || c == "-" || strings.Contains(c, "://") {
			continue
		}
		abs, err := filepath.Abs(c)
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			paths = append(paths, real)
		}
	}
	return paths
}

// copyPlain copies a file or directory for steps that run in place.
func copyPlain(ctx context.Context, src, dst string) error { return plain.Copy(ctx, src, dst) }
