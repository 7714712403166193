package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/tests/testbed/apt"
)

// recipeVersion is part of the cache key. Increase it after a change of a recipe.
const recipeVersion = "1"

// recipe makes one base image in an empty directory.
type recipe struct {
	name string
	make func(ctx context.Context, dir string) error
}

func recipes() []recipe {
	return []recipe{
		{"busybox", single(runtime.GOARCH, busybox)},
		{"debian", single(runtime.GOARCH, debian)},
		{"layers100", single(runtime.GOARCH, layers100)},
		{"special", single(runtime.GOARCH, special)},
		{"foreign", single(foreignArch(), busybox)},
		{"multi", multi},
	}
}

// foreignArch returns an architecture that differs from this machine's.
func foreignArch() string {
	if runtime.GOARCH == "arm64" {
		return "amd64"
	}
	return "arm64"
}

// makeImages makes the images that are missing in the cache. It returns the directory of
// the images, which holds one OCI layout for each. If only is not empty, it makes only
// the image of that name.
func makeImages(ctx context.Context, cache, only string) (string, error) {
	key, err := cacheKey()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "images-"+key)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create image cache: %w", err)
	}
	for _, r := range recipes() {
		final := filepath.Join(dir, r.name)
		if only != "" && r.name != only {
			continue
		}
		if _, err := os.Stat(filepath.Join(final, "index.json")); err == nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "making base image %s\n", r.name)
		if err := makeOne(ctx, r, final); err != nil {
			return "", fmt.Errorf("make base image %s: %w", r.name, err)
		}
	}
	return dir, nil
}

// makeOne works in a directory beside final and renames it at the end, so that the cache
// holds only complete images. If two processes make the same image, the first to finish
// wins.
func makeOne(ctx context.Context, r recipe, final string) error {
	work, err := os.MkdirTemp(filepath.Dir(final), "."+r.name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // renamed when all went well
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if err := r.make(ctx, work); err != nil {
		return err
	}
	if err := os.Rename(work, final); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// cacheKey returns a name made of everything that the content of the images depends on.
func cacheKey() (string, error) {
	release, err := apt.Codename()
	if err != nil {
		return "", err
	}
	version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "busybox-static").Output() //nolint:noctx // instant
	if err != nil {
		return "", fmt.Errorf("find busybox-static, is it installed: %w", err)
	}
	key := strings.Join([]string{recipeVersion, release, runtime.GOARCH, "busybox", string(version)}, "-")
	return strings.ReplaceAll(key, ":", "_"), nil // a colon would end the path in skopeo's oci:PATH:TAG
}

// single returns a recipe's make function for an image of one platform.
func single(arch string, fill func(context.Context, *image) error) func(context.Context, string) error {
	return func(ctx context.Context, dir string) error {
		desc, err := fillImage(ctx, dir, arch, fill)
		if err != nil {
			return err
		}
		return finish(dir, desc)
	}
}

func fillImage(ctx context.Context, dir, arch string, fill func(context.Context, *image) error) (ocispec.Descriptor, error) {
	img, err := newImage(dir, arch)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := fill(ctx, img); err != nil {
		return ocispec.Descriptor{}, err
	}
	return img.manifest()
}

// multi makes an index of two platforms: a foreign one and this machine's.
func multi(ctx context.Context, dir string) error {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, arch := range []string{foreignArch(), runtime.GOARCH} {
		desc, err := fillImage(ctx, dir, arch, func(ctx context.Context, img *image) error {
			img.config.Config.Env = append(img.config.Config.Env, "BASE_ARCH="+arch)
			return busybox(ctx, img)
		})
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, desc)
	}
	img := &image{blobs: filepath.Join(dir, "blobs", "sha256")}
	desc, err := img.putJSON(ocispec.MediaTypeImageIndex, index)
	if err != nil {
		return err
	}
	return finish(dir, desc)
}

// busybox adds Debian's static busybox with a symbolic link for each applet.
func busybox(ctx context.Context, img *image) error {
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	list, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("list the applets of busybox: %w", err)
	}
	var entries []entry
	for _, dir := range []string{"bin", "dev", "etc", "home", "proc", "root", "sbin", "sys", "usr", "usr/bin", "usr/sbin", "var"} {
		entries = append(entries, entry{name: dir + "/", mode: 0o755, kind: tar.TypeDir})
	}
	entries = append(
		entries,
		entry{name: "tmp/", mode: 0o1777, kind: tar.TypeDir},
		entry{name: "etc/passwd", mode: 0o644, body: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		entry{name: "etc/group", mode: 0o644, body: []byte("root:x:0:\ndaemon:x:1:\nstaff:x:50:daemon\nnogroup:x:65534:\n")},
		entry{name: "bin/busybox", mode: 0o755, body: program},
	)
	applets := strings.Fields(string(list))
	slices.Sort(applets)
	for _, applet := range applets {
		if applet != "busybox" {
			entries = append(entries, entry{name: "bin/" + applet, mode: 0o777, kind: tar.TypeSymlink, link: "busybox"})
		}
	}
	img.config.Config.Cmd = []string{"sh"}
	return img.addEntries("busybox from Debian's busybox-static", entries)
}

// layers100 adds 99 small layers on top of busybox. Each adds a file, rewrites a shared
// file, and removes the file that was added two layers before.
func layers100(ctx context.Context, img *image) error {
	if err := busybox(ctx, img); err != nil {
		return err
	}
	for i := 1; i < 100; i++ {
		entries := []entry{
			{name: "l/", mode: 0o755, kind: tar.TypeDir},
			{name: fmt.Sprintf("l/%d", i), mode: 0o644, body: fmt.Appendf(nil, "%d\n", i)},
			{name: "l/last", mode: 0o644, body: fmt.Appendf(nil, "%d\n", i)},
		}
		if i > 2 {
			entries = append(entries, entry{name: fmt.Sprintf("l/.wh.%d", i-2), mode: 0})
		}
		if err := img.addEntries(fmt.Sprintf("layer %d", i+1), entries); err != nil {
			return err
		}
	}
	return nil
}

// special adds a layer of file types and attributes other than plain files, and a second
// layer that hides some of them.
func special(ctx context.Context, img *image) error {
	if err := busybox(ctx, img); err != nil {
		return err
	}
	// A file capability of version 2: cap_net_bind_service, permitted and effective.
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	err := img.addEntries("special files", []entry{
		{name: "s/", mode: 0o755, kind: tar.TypeDir},
		{name: "s/suid", mode: 0o4755, body: []byte("suid\n")},
		{name: "s/owned", mode: 0o640, body: []byte("owned\n"), uid: 1234, gid: 4321},
		{name: "s/hard1", mode: 0o644, body: []byte("hard\n")},
		{name: "s/hard2", mode: 0o644, kind: tar.TypeLink, link: "s/hard1"},
		{name: "s/fifo", mode: 0o600, kind: tar.TypeFifo},
		{name: "s/cap", mode: 0o755, body: []byte("cap\n"), xattrs: map[string]string{"security.capability": capability}},
		{name: "s/attr", mode: 0o644, body: []byte("attr\n"), xattrs: map[string]string{"user.color": "blue"}},
		{name: "s/gone", mode: 0o644, body: []byte("gone\n")},
		{name: "s/opaque/", mode: 0o755, kind: tar.TypeDir},
		{name: "s/opaque/old", mode: 0o644, body: []byte("old\n")},
	})
	if err != nil {
		return err
	}
	return img.addEntries("hide some", []entry{
		{name: "s/.wh.gone"},
		{name: "s/opaque/", mode: 0o755, kind: tar.TypeDir},
		{name: "s/opaque/.wh..wh..opq"},
		{name: "s/opaque/new", mode: 0o644, body: []byte("new\n")},
	})
}

// debian adds the smallest Debian, or relative of Debian, in which apt works. mmdebstrap
// makes it from the package sources of this machine.
func debian(ctx context.Context, img *image) error {
	release, err := apt.Codename()
	if err != nil {
		return err
	}
	sources, err := apt.Sources(ctx, release)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "shale-debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary directory
	rootfs := filepath.Join(work, "rootfs.tar")
	mode := "unshare"
	if os.Geteuid() == 0 {
		mode = "root"
	}
	cmd := exec.CommandContext(
		ctx, "mmdebstrap", "--quiet", "--variant=apt", "--mode="+mode, "--format=tar", "--skip=output/dev",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*", `--aptopt=Acquire::Languages "none"`,
		`--aptopt=APT::Install-Recommends "false"`,
		"--customize-hook=rm -f $1/etc/resolv.conf $1/etc/hostname", release, rootfs, "-",
	)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()), "LC_ALL=C")
	cmd.Dir = work
	cmd.Stdin = strings.NewReader(sources)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run mmdebstrap: %w", err)
	}
	file, err := os.Open(rootfs)
	if err != nil {
		return err
	}
	defer file.Close()
	img.config.Config.Cmd = []string{"bash"}
	return img.addLayer("minimal Debian "+release+" by mmdebstrap", func(w io.Writer) error {
		_, err := io.Copy(w, file)
		return err
	})
}
