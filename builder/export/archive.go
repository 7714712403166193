package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archive writes img as a tar file to w: an OCI layout in which it has names,
// which are complete, and with docker the manifest.json as well that `docker
// load` reads. Nothing in it depends on when or by whom it is written.
func Archive(ctx context.Context, w io.Writer, img *Image, names []string, docker bool) error {
	files, err := layoutFiles(img, names, docker)
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.header.Name, b.header.Name) })
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := f.write(ctx, tw); err != nil {
			return fmt.Errorf("write %s to the archive: %w", f.header.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("finish archive: %w", err)
	}
	return nil
}

// file is an entry of an archive; open is nil for a directory.
type file struct {
	header tar.Header
	open   func() (io.ReadCloser, error)
}

func (f file) write(ctx context.Context, tw *tar.Writer) (err error) {
	if err := tw.WriteHeader(&f.header); err != nil {
		return err
	}
	if f.open == nil {
		return nil
	}
	r, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(tw, contextReader{ctx, r})
	return err
}

func layoutFiles(img *Image, names []string, docker bool) ([]file, error) {
	files := []file{directory(ocispec.ImageBlobsDir), directory(ocispec.ImageBlobsDir + "/sha256")}
	for _, b := range img.Blobs() {
		files = append(files, file{
			header: tar.Header{Typeflag: tar.TypeReg, Name: blobName(b.Desc.Digest), Mode: 0o444, Size: b.Desc.Size},
			open:   b.Open,
		})
	}
	index, err := indexJSON(named(img.Descriptor(), names))
	if err != nil {
		return nil, err
	}
	files = append(files, bytesFile(ocispec.ImageLayoutFile, 0o444, layoutFile), bytesFile(ocispec.ImageIndexFile, 0o644, index))
	if docker {
		list, err := manifestJSON(img, names)
		if err != nil {
			return nil, err
		}
		files = append(files, bytesFile("manifest.json", 0o644, list))
	}
	return files, nil
}

func directory(name string) file {
	return file{header: tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}}
}

func bytesFile(name string, mode int64, data []byte) file {
	return file{
		header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))},
		open:   func() (io.ReadCloser, error) { return io.NopCloser(bytesReader(data)), nil },
	}
}

func bytesReader(data []byte) io.Reader { return bytes.NewReader(data) }

// manifestJSON is the file by which `docker load` and `podman load` find the
// image.
func manifestJSON(img *Image, names []string) ([]byte, error) {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	list := make([]entry, 0, len(img.Manifests))
	for _, m := range img.Manifests {
		var parsed ocispec.Manifest
		if err := json.Unmarshal(m.Data, &parsed); err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		e := entry{Config: blobName(parsed.Config.Digest), Layers: []string{}}
		for _, l := range m.Layers {
			e.Layers = append(e.Layers, blobName(l.Desc.Digest))
		}
		for _, name := range names {
			e.RepoTags = append(e.RepoTags, familiar(name))
		}
		list = append(list, e)
	}
	data, err := json.Marshal(list)
	if err != nil {
		return nil, fmt.Errorf("write manifest.json: %w", err)
	}
	return data, nil
}

func familiar(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}
