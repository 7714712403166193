package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/stringid"

	"github.com/shale-build/shale/internal/filelock"
)

// Some changes take containers/storage several writes: an image is recorded
// first and gets its manifest after that, and one without a manifest makes
// podman stumble. A process announces such a change by a file that it holds
// locked. A file that nobody holds was left by one that was killed; whoever
// opens the store next puts right what it began.

// Kinds of announced changes; the ID follows in the file's name.
const (
	pendingImage  = "image-"
	pendingAnchor = "anchor-"
	// pendingLayer is for layers that are being recorded: mend looks after
	// what a killed process leaves of them.
	pendingLayer = "layer-"
)

// stateDir is where shale keeps its own state in the graph root, pendingDir where
// in it changes are announced.
const (
	stateDir   = "shale"
	pendingDir = "pending"
)

// AnnounceLayers says that the caller lets the library record layers whose IDs are
// not known beforehand. The caller calls done when that is over.
func (s *Store) AnnounceLayers(ctx context.Context) (done func() error, err error) {
	return s.announce(ctx, pendingLayer, stringid.GenerateRandomID())
}

// AnnounceImage says that the caller lets the library record the image with that ID,
// under the name that is returned: programs that remove images without a name do not
// take it. done takes that name away again, once the image has its own.
func (s *Store) AnnounceImage(ctx context.Context, id string) (name string, done func() error, err error) {
	end, err := s.announce(ctx, pendingImage, id)
	if err != nil {
		return "", nil, err
	}
	return interimName(id), func() error {
		err := s.dropInterim(id)
		if errors.Is(err, ErrImageUnknown) {
			err = nil
		}
		return errors.Join(err, end())
	}, nil
}

// announce returns what ends the announcement.
func (s *Store) announce(ctx context.Context, kind, id string) (done func() error, err error) {
	dir, err := s.StateDir(pendingDir)
	if err != nil {
		return nil, err
	}
	// Several builds may record one image; the last of them takes the file away.
	f, err := filelock.Open(ctx, filelock.Host{}, filepath.Join(dir, kind+id), filelock.Shared)
	if err != nil {
		return nil, fmt.Errorf("announce a change of the store: %w", err)
	}
	return endOf(f), nil
}

// announceNew is announce for an id that no other process knows yet. Only one that
// removes what killed processes left can have the file, for a moment.
func (s *Store) announceNew(kind, id string) (done func() error, err error) {
	dir, err := s.StateDir(pendingDir)
	if err != nil {
		return nil, err
	}
	for {
		f, err := filelock.TryOpen(filelock.Host{}, filepath.Join(dir, kind+id), filelock.Shared)
		if err != nil {
			return nil, fmt.Errorf("announce a change of the store: %w", err)
		}
		if f != nil {
			return endOf(f), nil
		}
		time.Sleep(time.Millisecond)
	}
}

// endOf returns what removes an announcement, which other processes may share.
func endOf(f *os.File) func() error {
	return func() error {
		var err error
		if alone, lockErr := filelock.Try(f, filelock.Exclusive); alone && lockErr == nil {
			err = os.Remove(f.Name())
		}
		return errors.Join(err, f.Close())
	}
}

// settle puts right what killed processes left half done. It costs the reading
// of one directory when there is nothing to do.
func (s *Store) settle() {
	dir := filepath.Join(s.GraphRoot(), stateDir, pendingDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if err := s.settleOne(filepath.Join(dir, e.Name()), e.Name()); err != nil {
			s.logger.Warn("what a killed process began could not be put right", "change", e.Name(), "error", err)
		}
	}
}

// abandoned tells whether a change announced in dir lost its process.
func abandoned(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		f := takeOver(filepath.Join(dir, e.Name()))
		if f == nil {
			return false
		}
		_ = f.Close()
		return true
	})
}

// takeOver locks the announcement of a process that is no more, nil for one that
// is alive. Closing the file unlocks it.
func takeOver(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	if locked, err := filelock.Try(f, filelock.Exclusive); !locked || err != nil {
		_ = f.Close()
		return nil
	}
	return f
}

func (s *Store) settleOne(path, name string) (err error) {
	f := takeOver(path)
	if f == nil {
		return nil
	}
	defer f.Close()
	if id, ok := strings.CutPrefix(name, pendingImage); ok {
		err = s.dropIncomplete(id)
	} else if id, ok := strings.CutPrefix(name, pendingAnchor); ok {
		if err = s.lib.DeleteLayer(id); errors.Is(err, cstorage.ErrLayerUnknown) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

// dropIncomplete removes an image that never got its config or manifest.
func (s *Store) dropIncomplete(id string) error {
	img, err := s.lib.Image(id)
	if errors.Is(err, cstorage.ErrImageUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	described := isIndex(img) || slices.Contains(img.BigDataNames, "sha256:"+id)
	if described && slices.Contains(img.BigDataNames, cstorage.ImageDigestBigDataKey) {
		return s.dropInterim(id)
	}
	_, err = s.RemoveImage(id, Removal{KeepLayers: true})
	return err
}
