package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the time of all files and images made here, so that the same packages give the
// same image.
var epoch = time.Unix(1700000000, 0).UTC()

// image collects the layers and the config of one image.
type image struct {
	blobs  string // <layout>/blobs/sha256
	config ocispec.Image
	layers []ocispec.Descriptor
}

// newImage starts an OCI layout in dir.
func newImage(dir, arch string) (*image, error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, fmt.Errorf("create image layout: %w", err)
	}
	img := &image{blobs: blobs}
	img.config.Created = &epoch
	img.config.Architecture = arch
	img.config.OS = "linux"
	img.config.RootFS.Type = "layers"
	img.config.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return img, nil
}

// addLayer stores the output of write, an uncompressed tar, as the next layer. comment
// becomes the layer's history entry.
func (img *image) addLayer(comment string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(img.blobs, "layer-")
	if err != nil {
		return fmt.Errorf("create layer: %w", err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone already when all went well
	defer file.Close()

	plain, packed := sha256.New(), sha256.New()
	zip, err := gzip.NewWriterLevel(io.MultiWriter(file, packed), gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := write(io.MultiWriter(zip, plain)); err != nil {
		return fmt.Errorf("write layer %q: %w", comment, err)
	}
	if err := zip.Close(); err != nil {
		return fmt.Errorf("write layer %q: %w", comment, err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	dgst := digest.NewDigest(digest.SHA256, packed)
	if err := os.Rename(file.Name(), filepath.Join(img.blobs, dgst.Encoded())); err != nil {
		return err
	}
	img.layers = append(img.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: dgst, Size: size})
	img.config.RootFS.DiffIDs = append(img.config.RootFS.DiffIDs, digest.NewDigest(digest.SHA256, plain))
	img.config.History = append(img.config.History, ocispec.History{Created: &epoch, CreatedBy: comment})
	return nil
}

// addEntries stores entries as the next layer.
func (img *image) addEntries(comment string, entries []entry) error {
	return img.addLayer(comment, func(w io.Writer) error { return writeTar(w, entries) })
}

// manifest writes the config and the manifest and returns the manifest's descriptor.
func (img *image) manifest() (ocispec.Descriptor, error) {
	config, err := img.putJSON(ocispec.MediaTypeImageConfig, img.config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := img.putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    config,
		Layers:    img.layers,
	})
	desc.Platform = &ocispec.Platform{Architecture: img.config.Architecture, OS: img.config.OS}
	return desc, err
}

func (img *image) putJSON(mediaType string, value any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dgst := digest.FromBytes(data)
	err = os.WriteFile(filepath.Join(img.blobs, dgst.Encoded()), data, 0o644)
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}, err
}

// finish writes the index of the layout in dir. Its only entry is desc, with the name
// "latest".
func finish(dir string, desc ocispec.Descriptor) error {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{desc},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

// entry is one file of a layer. If kind is zero, it is a regular file.
type entry struct {
	name   string
	mode   int64
	kind   byte
	body   []byte
	link   string
	uid    int
	gid    int
	xattrs map[string]string
}

func writeTar(w io.Writer, entries []entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		header := &tar.Header{
			Typeflag: e.kind, Name: e.name, Linkname: e.link, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			Size: int64(len(e.body)), ModTime: epoch, Format: tar.FormatPAX,
		}
		for name, value := range e.xattrs {
			if header.PAXRecords == nil {
				header.PAXRecords = map[string]string{}
			}
			header.PAXRecords["SCHILY.xattr."+name] = value
		}
		if err := tw.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(tw, bytes.NewReader(e.body)); err != nil {
			return err
		}
	}
	return tw.Close()
}
