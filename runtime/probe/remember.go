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

// Doubtful tells whether it takes a probe to know if namespaces can be had: for
// root without CAP_SYS_ADMIN, which is root of a container. Everybody else finds
// out by entering them, as nothing else could be done.
func Doubtful() bool {
	return isRoot() && !HasCapability(unix.CAP_SYS_ADMIN)
}

// HasCapability tells whether the process has a capability in force.
func HasCapability(number uint) bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[number/32].Effective>>(number%32)&1 != 0
}

// Namespaces tells why no containers can be made here; nil when they can. What
// was found is remembered until the machine, the program or what surrounds the
// process is another.
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

// Remembered returns what Namespaces found about one probe, making the probes
// when it has not been called yet.
func Remembered(ctx context.Context, version, name string) Result {
	results, ok := remembered(version)
	if !ok {
		results = namespaces(ctx)
		remember(version, results)
	}
	for _, r := range results {
		if r.Name == name {
			return r
		}
	}
	return Result{Name: name, Status: OK}
}

// memory is the file of what was found.
type memory struct {
	Key     string
	Results []Result
}

// memoryFile is private to the user and gone with the next boot; "" for nowhere.
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

// surroundings names all that the results may depend on.
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

// remember writes down what was found. Who cannot, probes again.
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
