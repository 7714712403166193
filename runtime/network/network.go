package network

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
)

// Mode is a network as users name it.
type Mode string

// The modes. Default takes a private network where one can be had, else the
// host's.
const (
	Default Mode = ""
	Host    Mode = "host"
	None    Mode = "none"
	Private Mode = "private"
)

// ParseMode checks a user's word.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Default, Host, None, Private:
		return m, nil
	case "default":
		return Default, nil
	}
	return "", fmt.Errorf("unknown network %q: want host, none or private", s)
}

// Options configure Setup.
type Options struct {
	Mode Mode
	// Dir is an existing directory for the namespace's mount point; the
	// caller removes it after Close.
	Dir string
	// Pasta is the program's path; empty looks in PATH.
	Pasta  string
	Logger *slog.Logger // may be nil
}

// Expect says, without setting anything up, what Setup is going to give for a
// mode. Only a start can tell for sure.
func Expect(mode Mode) Mode {
	if mode != Default {
		return mode
	}
	if _, err := exec.LookPath("pasta"); err != nil || CheckTun() != nil {
		return Host
	}
	return Private
}

// Network is what one build's commands share.
type Network struct {
	Mode Mode // Host, None or Private
	// Path of the namespace when Private.
	Path string
	// Reason says why Default gave less than a private network.
	Reason string

	close func() error
}

// Setup prepares the network of one build; Close ends it. It has to be called
// inside the namespaces of package userns.
func Setup(ctx context.Context, o Options) (*Network, error) {
	switch o.Mode {
	case Host, None:
		return &Network{Mode: o.Mode}, nil
	case Default, Private:
	default:
		return nil, fmt.Errorf("unknown network %q", o.Mode)
	}
	n, err := startPasta(ctx, o)
	if err == nil {
		return n, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if o.Mode == Private {
		return nil, fmt.Errorf("private network: %w", err)
	}
	if o.Logger != nil {
		o.Logger.DebugContext(ctx, "no private network", "error", err)
	}
	return &Network{Mode: Host, Reason: "no private network: " + err.Error()}, nil
}

// Close removes a private namespace and what serves it.
func (n *Network) Close() error {
	if n.close == nil {
		return nil
	}
	end := n.close
	n.close = nil
	return end()
}
