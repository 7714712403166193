//go:build e2e

package e2e

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// layerls [-n N] IMAGE prints the entries of a layer of an image in the store. They are
// sorted by name, one on each line:
//
//	TYPE MODE UID:GID SIZE NAME[ -> LINK][ dev MAJOR:MINOR][ xattr NAME=VALUE]…
//
// TYPE is -, d, l, h (hard link), p, c or b. N counts from the base and starts at 1. A
// negative N counts from the top; -1 is the last layer and the default. The image is read
// with skopeo, which does not depend on shale.
func layerls(args []string) error {
	number := -1
	if len(args) > 1 && args[0] == "-n" {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		number, args = n, args[2:]
	}
	if len(args) != 1 {
		return errors.New("usage: layerls [-n N] IMAGE")
	}
	dir, err := os.MkdirTemp("", "layerls")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := args[0]
	if !strings.Contains(name, "/") {
		name = "localhost/" + name // the name that shale gives to its images
	}
	if err := skopeoCopy("containers-storage:"+name, "oci:"+dir+":x"); err != nil {
		return err
	}
	manifests, _, err := readLayout(dir)
	if err != nil {
		return err
	}
	if number < 0 {
		number += len(manifests[0].Layers) + 1
	}
	if number < 1 || number > len(manifests[0].Layers) {
		return fmt.Errorf("the image has %d layers", len(manifests[0].Layers))
	}
	return listLayer(dir, manifests[0].Layers[number-1])
}

// skopeoCopy copies an image with skopeo. Reading a rootless store requires a user
// namespace with the ids of its files, which skopeo sets up by itself.
func skopeoCopy(from, to string) error {
	out, err := exec.Command("skopeo", "copy", "--quiet", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s to %s: %w: %s", from, to, err, out)
	}
	return nil
}

func listLayer(dir string, layer ocispec.Descriptor) error {
	file, err := os.Open(blob(dir, layer.Digest))
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := decompress(file)
	if err != nil {
		return err
	}
	var lines []string
	reader := tar.NewReader(plain)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		lines = append(lines, describe(header))
	}
	slices.SortFunc(lines, func(a, b string) int {
		return strings.Compare(strings.Fields(a)[4], strings.Fields(b)[4])
	})
	_, err = fmt.Println(strings.Join(lines, "\n"))
	return err
}

func describe(h *tar.Header) string {
	kind := map[byte]string{
		tar.TypeReg: "-", tar.TypeDir: "d", tar.TypeSymlink: "l", tar.TypeLink: "h",
		tar.TypeFifo: "p", tar.TypeChar: "c", tar.TypeBlock: "b",
	}[h.Typeflag]
	line := fmt.Sprintf("%s %04o %d:%d %d %s", kind, h.Mode&0o7777, h.Uid, h.Gid, h.Size, strings.TrimSuffix(h.Name, "/"))
	if h.Linkname != "" {
		line += " -> " + h.Linkname
	}
	if kind == "c" || kind == "b" {
		line += fmt.Sprintf(" dev %d:%d", h.Devmajor, h.Devminor)
	}
	var attrs []string
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
			attrs = append(attrs, fmt.Sprintf(" xattr %s=%q", name, value))
		}
	}
	slices.Sort(attrs)
	return line + strings.Join(attrs, "")
}

// ocicheck DIR verifies the image in an OCI layout, or all images of the only index in
// it. Every blob must have the digest of its name and the right size. The uncompressed
// layers must have the config's diffIDs, and the history must agree with the number of
// layers. It prints "layers N" and, for each layer, its digest and diffID.
func ocicheck(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: ocicheck DIR")
	}
	dir := args[0]
	manifests, configs, err := readLayout(dir)
	if err != nil {
		return err
	}
	for i := range manifests {
		if err := checkImage(dir, manifests[i], configs[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkImage(dir string, manifest ocispec.Manifest, config ocispec.Image) error {
	if len(manifest.Layers) != len(config.RootFS.DiffIDs) {
		return fmt.Errorf("%d layers, %d diffIDs", len(manifest.Layers), len(config.RootFS.DiffIDs))
	}
	full := 0
	for _, h := range config.History {
		if !h.EmptyLayer {
			full++
		}
	}
	if full != len(manifest.Layers) {
		return fmt.Errorf("%d layers, %d in the history", len(manifest.Layers), full)
	}
	fmt.Println("layers", len(manifest.Layers))
	for i, layer := range manifest.Layers {
		diffID, err := checkLayer(dir, layer)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i+1, err)
		}
		if diffID != config.RootFS.DiffIDs[i] {
			return fmt.Errorf("layer %d: diffID is %s, config says %s", i+1, diffID, config.RootFS.DiffIDs[i])
		}
		fmt.Println("layer", layer.Digest)
		fmt.Println("diffid", diffID)
	}
	return nil
}

// readLayout reads and verifies the manifests and configs of the layout's only image, or
// of its only index.
func readLayout(dir string) ([]ocispec.Manifest, []ocispec.Image, error) {
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return nil, nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, nil, fmt.Errorf("%d images in %s, want 1", len(index.Manifests), dir)
	}
	if root := index.Manifests[0]; root.MediaType == ocispec.MediaTypeImageIndex {
		if err := readBlob(dir, root, &index); err != nil {
			return nil, nil, fmt.Errorf("index: %w", err)
		}
	}
	manifests := make([]ocispec.Manifest, len(index.Manifests))
	configs := make([]ocispec.Image, len(index.Manifests))
	for i, desc := range index.Manifests {
		if err := readBlob(dir, desc, &manifests[i]); err != nil {
			return nil, nil, fmt.Errorf("manifest: %w", err)
		}
		if err := readBlob(dir, manifests[i].Config, &configs[i]); err != nil {
			return nil, nil, fmt.Errorf("config: %w", err)
		}
	}
	return manifests, configs, nil
}

func readBlob(dir string, desc ocispec.Descriptor, into any) error {
	data, err := os.ReadFile(blob(dir, desc.Digest))
	if err != nil {
		return err
	}
	if int64(len(data)) != desc.Size || digest.FromBytes(data) != desc.Digest {
		return fmt.Errorf("%s is not what its descriptor says", desc.Digest)
	}
	return json.Unmarshal(data, into)
}

func blob(dir string, dgst digest.Digest) string {
	return filepath.Join(dir, "blobs", dgst.Algorithm().String(), dgst.Encoded())
}

// checkLayer verifies a layer's digest and size and returns its diffID.
func checkLayer(dir string, desc ocispec.Descriptor) (digest.Digest, error) {
	file, err := os.Open(blob(dir, desc.Digest))
	if err != nil {
		return "", err
	}
	defer file.Close()
	packed := sha256.New()
	size, err := io.Copy(packed, file)
	if err != nil {
		return "", err
	}
	if size != desc.Size || hex.EncodeToString(packed.Sum(nil)) != desc.Digest.Encoded() {
		return "", fmt.Errorf("%s is not what its descriptor says", desc.Digest)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	plain, err := decompress(file)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, plain); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

// decompress returns the uncompressed data of r, which is gzip or not compressed.
func decompress(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	if magic, err := buffered.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		return gzip.NewReader(buffered)
	}
	return buffered, nil
}

// mktree DIR fills a build context with files that a txtar archive cannot hold: symbolic
// and hard links, a set-id mode, a sparse file, an extended attribute, an empty directory
// and unusual names.
func mktree(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: mktree DIR")
	}
	dir := args[0]
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.MkdirAll(at("empty"), 0o755); err != nil {
		return err
	}
	for name, mode := range map[string]os.FileMode{"plain": 0o644, "program": 0o755, "suid": 0o4755, "a b": 0o600, "ünï": 0o644} {
		if err := os.WriteFile(at(name), []byte(name+"\n"), 0o600); err != nil {
			return err
		}
		if err := syscall.Chmod(at(name), uint32(mode)); err != nil {
			return err
		}
	}
	sparse, err := os.Create(at("sparse"))
	if err != nil {
		return err
	}
	if err := errors.Join(sparse.Truncate(8<<20), sparse.Close()); err != nil {
		return err
	}
	return errors.Join(
		os.Symlink("plain", at("link")),
		os.Symlink("/nowhere", at("dangling")),
		os.Link(at("plain"), at("hard")),
		unix.Setxattr(at("plain"), "user.color", []byte("blue"), 0),
	)
}
