package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/blobs"
)

// NewArchive starts a tar file that contains an OCI layout. The caller must write the
// layers to it and then call Archive. If w is a pipe, blobs of unknown size are first
// written to temporary files in tempDir.
func NewArchive(w io.Writer, tempDir string) (*blobs.Tar, error) {
	t := blobs.NewTar(w)
	t.TempDir = tempDir
	return t, errors.Join(t.Directory(ocispec.ImageBlobsDir), t.Directory(ocispec.ImageBlobsDir+"/"+digest.Canonical.String()))
}

// Archive completes an archive that contains the layers of img. names are the complete
// names of img in the archive. If docker is true, the archive also gets the manifest.json
// that `docker load` reads. The content does not depend on when and by which user it is
// written.
func Archive(t *blobs.Tar, img *Image, names []string, docker bool) error {
	for _, p := range img.Parts() {
		if err := t.Blob(p.Desc.Digest, p.Data); err != nil {
			return err
		}
	}
	index, err := indexJSON(named(img.Descriptor(), names))
	if err != nil {
		return err
	}
	if err := t.File(ocispec.ImageIndexFile, 0o644, index); err != nil {
		return err
	}
	if docker {
		list, err := manifestJSON(img, names)
		if err != nil {
			return err
		}
		if err := t.File("manifest.json", 0o644, list); err != nil {
			return err
		}
	}
	if err := t.File(ocispec.ImageLayoutFile, 0o444, blobs.LayoutFile()); err != nil {
		return err
	}
	return t.Close()
}

// manifestJSON returns the content of manifest.json, in which `docker load` and `podman
// load` find the image.
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
		e := entry{Config: blobs.Name(parsed.Config.Digest), Layers: []string{}}
		for _, l := range m.Layers {
			e.Layers = append(e.Layers, blobs.Name(l.Desc.Digest))
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
