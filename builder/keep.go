package builder

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shale-build/shale/storage"
)

// keeper protects the layers that a build found in the store, which are layers of base
// images and of the cache. Layers that the build itself records need no protection: no
// image refers to them, so another program cannot remove them with an image.
//
// A hold protects a layer from other shale processes and costs one system call. Podman
// and buildah do not know holds. Only a pin protects a layer from them, and each pin is
// written to disk several times. A build therefore makes pins in the background of its
// first step, and waits for them when the step ends. If all steps are found in the cache,
// the build makes no pins and stays fast.
type keeper struct {
	store *storage.Store

	mu sync.Mutex
	// lasting is true after the first step has begun.
	lasting bool
	// found holds the layers that are not pinned yet. Layers that are found after the
	// first step has begun are collected until timer fires, and then pinned together.
	found []string
	timer *time.Timer
	// turn must be held while pins are made and to use failed. failed is the error of the
	// first pin that could not be made.
	turn   sync.Mutex
	failed error
}

// pinAfter is how long further layers are collected before they are pinned. One pin of
// the topmost layer protects all layers below it.
const pinAfter = 300 * time.Millisecond

// newKeeper returns a keeper. The store reports each layer that is already recorded when
// the build records it again, so that the keeper protects it too.
func newKeeper(store *storage.Store) *keeper {
	k := &keeper{store: store}
	store.OnFound(k.note)
	return k
}

// Layer protects a layer from removal and reports whether it exists.
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

// note adds a layer to those that will be pinned.
func (k *keeper) note(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.found = append(k.found, id)
	if k.lasting && k.timer == nil {
		k.timer = time.AfterFunc(pinAfter, func() { _ = k.pin() }) // pin keeps the error in failed
	}
}

// begin must be called when a step begins. It pins the layers that were found so far, in
// the background. wait waits for the pins and returns an error that wraps
// storage.ErrRemoved if one of the layers has been removed.
func (k *keeper) begin() (wait func() error) {
	k.mu.Lock()
	k.lasting = true
	k.mu.Unlock()
	result := make(chan error, 1)
	go func() { result <- k.pin() }()
	return func() error { return <-result }
}

// close waits for the pins that are being made. The keeper makes no pins afterwards.
func (k *keeper) close() error {
	k.store.OnFound(nil)
	k.mu.Lock()
	k.lasting, k.found = false, nil
	k.mu.Unlock()
	k.turn.Lock()
	defer k.turn.Unlock()
	return nil
}

// pin pins the topmost of the layers that were found. A pin also protects the layers
// below.
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

// removedLayer explains, for an unknown layer, that another program has removed it.
func removedLayer(err error) error {
	if errors.Is(err, storage.ErrLayerUnknown) {
		return fmt.Errorf("%w: it was %w when the build began, as podman's rmi and prune do: build again", err, storage.ErrRemoved)
	}
	return err
}
