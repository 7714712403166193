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

// containers/storage needs several writes for some changes. For example, it records an
// image first and adds the manifest afterwards, and an image without a manifest makes
// podman fail. A process therefore announces such a change by a file, which it keeps
// locked. If the file is not locked, its process was killed. The next process that opens
// the store then repairs the unfinished change.

// Kinds of announced changes. In the file's name, the ID follows the kind.
const (
	pendingImage  = "image-"
	pendingAnchor = "anchor-"
	// pendingLayer is for layers that are being recorded. mend repairs such layers after
	// a process was killed.
	pendingLayer = "layer-"
)

// stateDir is the directory of shale's own state in the graph root. pendingDir is its
// subdirectory with the announcements of changes.
const (
	stateDir   = "shale"
	pendingDir = "pending"
)

// AnnounceLayers announces that the library will record layers whose IDs are not known
// yet. The caller must call done after that.
func (s *Store) AnnounceLayers(ctx context.Context) (done func() error, err error) {
	return s.announce(ctx, pendingLayer, stringid.GenerateRandomID())
}

// AnnounceImage announces that the library will record the image id. The caller must
// record it under the returned name, so that programs that remove images without a name
// do not remove it. Once the image has its own names, the caller must call done, which
// removes that name.
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

// announce announces a change. done ends the announcement.
func (s *Store) announce(ctx context.Context, kind, id string) (done func() error, err error) {
	dir, err := s.StateDir(pendingDir)
	if err != nil {
		return nil, err
	}
	// Several builds may record the same image. The last of them removes the file.
	f, err := filelock.Open(ctx, filelock.Host{}, filepath.Join(dir, kind+id), filelock.Shared)
	if err != nil {
		return nil, fmt.Errorf("announce a change of the store: %w", err)
	}
	return endOf(f), nil
}

// announceNew is announce for an id that no other process knows yet. Only a process that
// repairs the changes of killed processes can lock the file, and only for a moment.
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

// endOf returns a function that removes an announcement, unless other processes share it.
func endOf(f *os.File) func() error {
	return func() error {
		var err error
		if alone, lockErr := filelock.Try(f, filelock.Exclusive); alone && lockErr == nil {
			err = os.Remove(f.Name())
		}
		return errors.Join(err, f.Close())
	}
}

// settle repairs the unfinished changes of killed processes. If there are none, it only
// reads one directory.
func (s *Store) settle() {
	dir := filepath.Join(s.GraphRoot(), stateDir, pendingDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if err := s.settleOne(filepath.Join(dir, e.Name()), e.Name()); err != nil {
			s.logger.Warn("the unfinished change of a killed process could not be repaired", "change", e.Name(), "error", err)
		}
	}
}

// abandoned reports whether a change that was announced in dir has lost its process.
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

// takeOver locks the announcement of a process that has ended. It returns nil if the
// process is alive. Closing the file unlocks it.
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

// dropIncomplete removes an image without a config or a manifest. If the image has both,
// it removes only the interim name.
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
