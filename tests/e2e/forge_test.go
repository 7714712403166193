//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// forge changes the only image of an OCI layout so that its parts are inconsistent.
// Normal tools do not make such images:
//
//	forge DIR drop N         remove layer N, counted from 0, from the manifest
//	forge DIR swap N FROM    replace layer N by layer N of the layout FROM
//	forge DIR diffids JSON   replace the diff_ids of the config
//	forge DIR manifest       change the manifest, so that its digest is wrong
//	forge DIR name NAME…     list the image in the index once for each NAME
//
// It prints the digest that the index has for the image's manifest afterwards.
func forge(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: forge DIR drop|swap|diffids|manifest|name [ARG…]")
	}
	dir, args := args[0], args[1:]
	manifests, _, err := readLayout(dir)
	if err != nil {
		return err
	}
	m := manifests[0]
	var names []string
	switch kind := args[0]; {
	case kind == "drop" && len(args) == 2, kind == "swap" && len(args) == 3:
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if kind == "drop" {
			m.Layers = append(m.Layers[:n:n], m.Layers[n+1:]...)
			break
		}
		if m.Layers[n], err = takeLayer(args[2], n, dir); err != nil {
			return err
		}
	case kind == "diffids" && len(args) == 2:
		if err := setDiffIDs(dir, &m, args[1]); err != nil {
			return err
		}
	case kind == "manifest":
		return spoilManifest(dir)
	case kind == "name":
		names = args[1:]
	default:
		return fmt.Errorf("forge cannot do %q", args)
	}
	desc, err := writeBlob(dir, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	return writeIndex(dir, desc, names)
}

// takeLayer copies the blob of layer n from one layout to another.
func takeLayer(from string, n int, to string) (ocispec.Descriptor, error) {
	manifests, _, err := readLayout(from)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := manifests[0].Layers[n]
	data, err := os.ReadFile(blob(from, desc.Digest))
	if err != nil {
		return desc, err
	}
	return desc, putBlob(to, desc.Digest, data)
}

func putBlob(dir string, dgst digest.Digest, data []byte) error {
	err := os.WriteFile(blob(dir, dgst), data, 0o644)
	if errors.Is(err, os.ErrPermission) {
		return nil // the blob exists and is read-only
	}
	return err
}

func setDiffIDs(dir string, m *ocispec.Manifest, ids string) error {
	var config map[string]any
	if err := readBlob(dir, m.Config, &config); err != nil {
		return err
	}
	config["rootfs"] = map[string]any{"type": "layers", "diff_ids": json.RawMessage(ids)}
	desc, err := writeBlob(dir, m.Config.MediaType, config)
	m.Config = desc
	return err
}

// spoilManifest changes the bytes of the manifest, but not its size.
func spoilManifest(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return err
	}
	path := blob(dir, index.Manifests[0].Digest)
	manifest, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil { // the file is read-only
		return err
	}
	fmt.Println(index.Manifests[0].Digest)
	return os.WriteFile(path, bytes.Replace(manifest, []byte(`"schemaVersion"`), []byte(`"SchemaVersion"`), 1), 0o644)
}

func writeBlob(dir, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, putBlob(dir, desc.Digest, data)
}

func writeIndex(dir string, desc ocispec.Descriptor, names []string) error {
	list := []ocispec.Descriptor{desc}
	for i, name := range names {
		desc.Annotations = map[string]string{"io.containerd.image.name": name}
		list = append(list[:i:i], desc)
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": list})
	if err != nil {
		return err
	}
	fmt.Println(desc.Digest)
	return os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644)
}
