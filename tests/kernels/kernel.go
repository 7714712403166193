package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// linux is a kernel in the cache. Its directory holds the files vmlinuz, initrd,
// modules.ext4 and release. The last contains the output of uname -r.
type linux struct{ dir string }

func (l linux) file(name string) string { return filepath.Join(l.dir, name) }

// linux returns the machine's kernel. It is downloaded only if it is not in the cache, so
// a newer kernel is used only after the cache is emptied.
func (m machine) linux(ctx context.Context, cache string) (linux, error) {
	dir, err := cached(cache, strings.Join([]string{"kernel", m.release, m.kernel}, "-"), func(work string) error {
		a, err := newArchives(ctx, filepath.Join(work, "apt"), m.release, m.arch)
		if err != nil {
			return err
		}
		name, err := a.depends(ctx, m.kernel, "linux-image-")
		if err != nil {
			return err
		}
		unpacked := filepath.Join(work, "package")
		if err := a.unpack(ctx, name, unpacked); err != nil {
			return err
		}
		// Use the package of the machine's architecture, which may differ from the
		// host's.
		if err := a.unpack(ctx, "busybox-static", unpacked); err != nil {
			return err
		}
		return linux{filepath.Join(work, "made")}.make(ctx, unpacked, strings.TrimPrefix(name, "linux-image-"))
	})
	return linux{dir}, err
}

// make makes the files of a kernel from its unpacked package and busybox.
func (l linux) make(ctx context.Context, unpacked, release string) error {
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(l.file("release"), []byte(release), 0o644); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(unpacked, "boot", "vmlinuz-"+release), l.file("vmlinuz")); err != nil {
		return err
	}
	if err := run(ctx, "depmod", "-b", unpacked, release); err != nil {
		return err
	}
	modules := filepath.Join(unpacked, "lib", "modules")
	if err := l.initrd(unpacked, filepath.Join(modules, release)); err != nil {
		return err
	}
	if err := label(modules, "system_u:object_r:modules_object_t:s0"); err != nil {
		return err
	}
	return image(ctx, l.file("modules.ext4"), modules, "1G")
}

// needed are the modules that are required to mount the root file system.
var needed = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "ext4"}

// initrd writes the initial RAM file system, which mounts the root file system. It holds
// busybox, a script, and the modules in the order in which they can be loaded.
func (l linux) initrd(unpacked, modules string) error {
	order, err := loadOrder(modules, needed)
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(filepath.Join(unpacked, "bin", "busybox"))
	if err != nil {
		return err
	}
	file, err := os.Create(l.file("initrd"))
	if err != nil {
		return err
	}
	defer file.Close()
	zipped := gzip.NewWriter(file)
	a := &archive{w: zipped}
	for _, dir := range []string{"bin", "dev", "modules", "proc", "root", "sys"} {
		a.file(dir, 0o755, nil)
	}
	a.file("bin/busybox", 0o755, busybox)
	a.file("bin/sh", 0o755, busybox)
	a.file("init", 0o755, []byte(initScript))
	var names bytes.Buffer
	for _, module := range order {
		body, err := readModule(filepath.Join(modules, module))
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(path.Base(module), ".xz")
		a.file("modules/"+name, 0o644, body)
		fmt.Fprintln(&names, name)
	}
	a.file("modules/order", 0o644, names.Bytes())
	if err := a.close(); err != nil {
		return err
	}
	if err := zipped.Close(); err != nil {
		return err
	}
	return file.Close()
}

// loadOrder returns the files of the named modules and of their dependencies. Each module
// follows its dependencies. A name that modules.dep does not list is skipped, because
// that module is built into the kernel.
func loadOrder(dir string, names []string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	var order []string
	added := map[string]bool{}
	for _, name := range names {
		for line := range strings.Lines(string(data)) {
			file, depends, _ := strings.Cut(strings.TrimSpace(line), ":")
			base, _, _ := strings.Cut(path.Base(file), ".")
			if base != name {
				continue
			}
			// depmod lists dependencies in reverse: the module to load first is last.
			list := append([]string{file}, strings.Fields(depends)...)
			for _, module := range slices.Backward(list) {
				if !added[module] {
					added[module] = true
					order = append(order, module)
				}
			}
		}
	}
	return order, nil
}

// readModule returns the uncompressed module. busybox cannot decompress modules itself.
func readModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !strings.HasSuffix(file, ".xz") {
		return io.ReadAll(f)
	}
	unpacked, err := xz.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return io.ReadAll(unpacked)
}
