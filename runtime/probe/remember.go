package probe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Doubtful reports whether probes are necessary to know if the process can use
// namespaces. That is so for root without CAP_SYS_ADMIN, which is the root of a
// container. Other users need no probe: they must enter namespaces anyway, because they
// have no other way to build.
func Doubtful() bool {
	return isRoot() && !HasCapability(unix.CAP_SYS_ADMIN)
}

// HasCapability reports whether the process has an effective capability. number is a CAP
// constant of package unix.
func HasCapability(number uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[number/32].Effective>>(number%32)&1 != 0
}

// Namespaces returns in why the reason for which no containers can be created here, or
// nil if they can. version is the version of the program. The results are remembered
// until the next boot. They are not used if the program, the process's namespaces, its
// security label or its privileges have changed. If ctx ends, err is the cause of ctx.
func Namespaces(ctx context.Context, version string) (why, err error) {
	results, ok := remembered(version)
	if !ok {
		if results = namespaces(ctx); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		remember(version, results)
	}
	for _, r := range results {
		if (r.Name == UserNS || r.Name == PivotRoot) && r.Status == Missing {
			return fmt.Errorf("%s: %s", r.Name, r.Detail), nil
		}
	}
	return nil, nil //nolint:nilnil // nothing stands in the way
}

// memory is the content of the file with the remembered results.
type memory struct {
	Key     string
	Results []Result
}

// memoryFile returns the path of the file for the results. The file is private to the
// user and removed by the next boot. memoryFile returns "" if there is no directory for
// it.
func memoryFile() string {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if isRoot() {
		dir = "/run"
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, "shale-probes.json")
}

// surroundings returns a key for all facts that the results depend on.
func surroundings(version string) string {
	h := sha256.New()
	note := func(parts ...string) {
		for _, p := range parts {
			_, _ = fmt.Fprintf(h, "%d:%s", len(p), p)
		}
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	label, _ := os.ReadFile("/proc/self/attr/current")
	note(version, string(boot), string(label), strconv.Itoa(os.Geteuid()))
	for _, ns := range []string{"user", "mnt", "pid"} {
		link, _ := os.Readlink("/proc/self/ns/" + ns)
		note(link)
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		for _, name := range []string{"CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:"} {
			if strings.HasPrefix(line, name) {
				note(line)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func remembered(version string) ([]Result, bool) {
	path := memoryFile()
	if path == "" {
		return nil, false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || int(st.Uid) != os.Geteuid() || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o022 != 0 {
		return nil, false
	}
	var m memory
	if json.NewDecoder(f).Decode(&m) != nil || m.Key != surroundings(version) {
		return nil, false
	}
	return m.Results, true
}

// remember writes the results to the file. It ignores errors; the next call probes again.
func remember(version string, results []Result) {
	path := memoryFile()
	if path == "" {
		return
	}
	data, err := json.Marshal(memory{Key: surroundings(version), Results: results})
	if err != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "shale-probes-")
	if err != nil {
		return
	}
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
		if err == nil {
			return
		}
	}
	_ = os.Remove(tmp.Name())
}
