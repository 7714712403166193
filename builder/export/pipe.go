package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// pipe is one end of a connection between fsutil's sender and its receiver,
// which are made for two machines and do here for one.
type pipe struct {
	ctx context.Context //nolint:containedctx // the interface asks for it
	in  <-chan *types.Packet
	out chan<- *types.Packet
}

var _ fsutil.Stream = pipe{}

// transfer sends fs to receive.
func transfer(ctx context.Context, fs fsutil.FS, receive func(context.Context, fsutil.Stream) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const ahead = 16
	there, back := make(chan *types.Packet, ahead), make(chan *types.Packet, ahead)
	sent := make(chan error, 1)
	go func() {
		// The end of the stream is what the receiver waits for; a sender that
		// fails has told it why.
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

// SendMsg implements fsutil.Stream. The sender uses its buffers again.
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
