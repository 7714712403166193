package builder

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shale-build/shale/storage"
)

// keeper keeps in the store the layers that a build found there: those of base images
// and those of the cache. What the build records itself stays anyway: no image that
// another program could remove has it.
//
// From shale itself such a layer is kept by holding it, which costs a system call. From
// podman and buildah only pins keep it, each of which is written to disk several times. A
// build makes them beside its first step, and waits for them when the step ends: a build
// of which all is in the cache makes none, and is over within moments.
type keeper struct {
	store *storage.Store

	mu sync.Mutex
	// lasting reports that a step has begun.
	lasting bool
	// found are layers that are not pinned yet. Those that are found while the
	// build lasts are pinned together, when timer ends.
	found []string
	timer *time.Timer
	// turn is held by who makes pins, and failed is why that was not possible.
	turn   sync.Mutex
	failed error
}

// pinAfter is how long layers that are found are waited for, to pin the topmost.
const pinAfter = 300 * time.Millisecond

// newKeeper lets the store tell the keeper of the layers that it found instead of
// recording them once more.
func newKeeper(store *storage.Store) *keeper {
	k := &keeper{store: store}
	store.OnFound(k.note)
	return k
}

// Layer keeps a layer, and reports whether it is there.
func (k *keeper) Layer(id string) (bool, error) {
	if id == "" {
		return true, nil
	}
	if err := k.store.Hold(id); err != nil {
		return false, err
	}
	_, err := k.store.Layer(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	k.note(id)
	return true, nil
}

// note remembers to pin a layer.
func (k *keeper) note(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found = append(k.found, id)
	if k.lasting && k.timer == nil {
		k.timer = time.AfterFunc(pinAfter, func() { _ = k.pin() }) // failed keeps the error
	}
}

// begin pins the layers found so far, in the background, as a step begins. wait
// returns an error, which wraps storage.ErrRemoved, if some of it has been removed.
func (k *keeper) begin() (wait func() error) {
	k.mu.Lock()
	k.lasting = true
	k.mu.Unlock()
	result := make(chan error, 1)
	go func() { result <- k.pin() }()
	return func() error { return <-result }
}

// close waits until no pin is being made, and lets none be made afterwards.
func (k *keeper) close() error {
	k.store.OnFound(nil)
	k.mu.Lock()
	k.lasting, k.found = false, nil
	k.mu.Unlock()
	k.turn.Lock()
	defer k.turn.Unlock()
	return nil
}

// pin pins the layers that were found, but those that others of them are built on.
func (k *keeper) pin() error {
	k.turn.Lock()
	defer k.turn.Unlock()
	k.mu.Lock()
	found := k.found
	k.found, k.timer = nil, nil
	k.mu.Unlock()
	if k.failed != nil {
		return k.failed
	}
	slices.Sort(found)
	if err := k.pinTops(slices.Compact(found)); err != nil {
		k.failed = err
	}
	return k.failed
}

func (k *keeper) pinTops(layers []string) error {
	below := map[string]bool{}
	for _, id := range layers {
		if below[id] {
			continue
		}
		chain, err := k.store.Chain(id)
		if err != nil {
			return removedLayer(err)
		}
		for _, l := range chain[:len(chain)-1] {
			below[l.ID] = true
		}
	}
	for _, id := range layers {
		if below[id] {
			continue
		}
		if err := k.store.Pin(id); err != nil {
			return removedLayer(err)
		}
	}
	return nil
}

// removedLayer says of a layer that is not known why.
func removedLayer(err error) error {
	if errors.Is(err, storage.ErrLayerUnknown) {
		return fmt.Errorf("%w: it was %w when the build began, as podman's rmi and prune do: build again", err, storage.ErrRemoved)
	}
	return err
}
