package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Mode is a kind of network that the user can choose.
type Mode string

// The modes. Default is a private network if that is possible, and otherwise the host's.
const (
	Default Mode = ""
	Host    Mode = "host"
	None    Mode = "none"
	Private Mode = "private"
)

// ParseMode converts the user's input to a Mode. The input "default" means Default.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Default, Host, None, Private:
		return m, nil
	case "default":
		return Default, nil
	}
	return "", fmt.Errorf("unknown network %q: want host, none or private", s)
}

// Options are the settings of Setup.
type Options struct {
	Mode Mode
	// Dir is an existing directory for the namespace's mount point. The caller must
	// remove it after Close, and also after a builder was killed.
	Dir string
	// Memory is the path of a file in which Setup records its result for Expect. If it
	// is empty, Setup records no result. Only the user may be able to write to its
	// directory.
	Memory string
	// Pasta is the path of pasta(1). If it is empty, pasta is looked up in PATH.
	Pasta  string
	Logger *slog.Logger // may be nil
}

// Network is the network that the commands of one build share.
type Network struct {
	Mode Mode // Host, None or Private
	// Path is the path of the namespace if Mode is Private.
	Path string
	// Reason is the reason for which Default got the host's network. Otherwise it is
	// empty.
	Reason string

	close func() error
}

// Setup prepares the network of one build. The caller must call Close. Setup must be
// called inside the namespaces of package userns. If a private network is not possible,
// Setup returns an error for Private and the host's network for Default.
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

// Close ends pasta and removes a private namespace. It may be called more than once.
func (n *Network) Close() error {
	if n.close == nil {
		return nil
	}
	end := n.close
	n.close = nil
	return end()
}
