package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// pipe is one end of a connection between the sender and the receiver of fsutil. They are
// made for two machines, but here both run in this process.
type pipe struct {
	ctx context.Context //nolint:containedctx // the interface asks for it
	in  <-chan *types.Packet
	out chan<- *types.Packet
}

var _ fsutil.Stream = pipe{}

// transfer sends the files of fs to receive.
func transfer(ctx context.Context, fs fsutil.FS, receive func(context.Context, fsutil.Stream) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const ahead = 16
	there, back := make(chan *types.Packet, ahead), make(chan *types.Packet, ahead)
	sent := make(chan error, 1)
	go func() {
		// The receiver waits for the end of the stream. If the sender fails, it has sent
		// the reason to the receiver before.
		defer close(there)
		sent <- fsutil.Send(ctx, pipe{ctx, back, there}, fs, nil)
	}()
	err := receive(ctx, pipe{ctx, there, back})
	cancel()
	sendErr := <-sent
	if err == nil && !errors.Is(sendErr, context.Canceled) {
		return sendErr
	}
	return err
}

// Context implements fsutil.Stream.
func (p pipe) Context() context.Context { return p.ctx }

// SendMsg implements fsutil.Stream. It copies the packet, because the sender reuses its
// buffers.
func (p pipe) SendMsg(m any) error {
	packet, ok := m.(*types.Packet)
	if !ok {
		return fmt.Errorf("send %T: not a packet", m)
	}
	select {
	case p.out <- packet.CloneVT():
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// RecvMsg implements fsutil.Stream.
func (p pipe) RecvMsg(m any) error {
	dest, ok := m.(*types.Packet)
	if !ok {
		return fmt.Errorf("receive %T: not a packet", m)
	}
	select {
	case packet, ok := <-p.in:
		if !ok {
			return io.EOF
		}
		dest.Reset()
		dest.Type, dest.Stat, dest.ID, dest.Data = packet.Type, packet.Stat, packet.ID, packet.Data
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}
