package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	// caller removes it after Close, or after the builder was killed.
	Dir string
	// Memory is the file in which Setup notes for Expect whether there is a
	// private network, "" for none. Only the user may write to its directory.
	Memory string
	// Pasta is the program's path; empty looks in PATH.
	Pasta  string
	Logger *slog.Logger // may be nil
}

// Network is what one build's commands share.
type Network struct {
	Mode Mode // Host, None or Private
	// Path of the namespace when Private.
	Path string
	// Reason is why Default gave less than a private network.
	Reason string

	close func() error
}

// Setup prepares the network of one build; Close ends it. It has to be called
// inside the namespaces of package userns. Private, where it cannot be had, is an
// error; Default is the host's network then.
func Setup(ctx context.Context, o Options) (*Network, error) {
	switch o.Mode {
	case Host, None:
		return &Network{Mode: o.Mode}, nil
	case Default, Private:
	default:
		return nil, fmt.Errorf("unknown network %q", o.Mode)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n, err := startPasta(ctx, o)
	if ctx.Err() != nil {
		if err == nil {
			err = n.Close()
		}
		return nil, errors.Join(context.Cause(ctx), err)
	}
	note(o, err)
	if err == nil {
		return n, nil
	}
	if o.Mode == Private {
		return nil, fmt.Errorf("private network: %w", err)
	}
	return &Network{Mode: Host, Reason: err.Error()}, nil
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
