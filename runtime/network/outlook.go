package network

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Outlook is what is known of a build's network before it is set up.
type Outlook struct {
	Mode Mode // Host, None or Private
	// Reason is why Default gives the host's network.
	Reason string
	// Tried reports whether a private network was had by the last build in
	// the same surroundings. Without it Private is no more than a hope.
	Tried bool
}

// Expect returns, without setting anything up, what Setup is going to give for a
// mode. It takes what the last Setup noted in the file memory (see Options),
// unless the machine was started since, pasta is another, or the process has
// another label or network.
func Expect(mode Mode, memory, pasta string) Outlook {
	if mode == Host || mode == None {
		return Outlook{Mode: mode}
	}
	program, err := findPasta(pasta)
	if err != nil {
		return expected(mode, err.Error())
	}
	var m remembered
	data, err := os.ReadFile(memory)
	if err != nil || json.Unmarshal(data, &m) != nil || m.Key != surroundings(program) {
		return Outlook{Mode: Private}
	}
	if m.Reason != "" {
		return expected(mode, m.Reason)
	}
	return Outlook{Mode: Private, Tried: true}
}

// expected is the outlook where the last try failed.
func expected(mode Mode, reason string) Outlook {
	if mode == Private {
		// It is asked for; what fails is the build.
		return Outlook{Mode: Private}
	}
	return Outlook{Mode: Host, Reason: reason}
}

// remembered is the content of a memory file.
type remembered struct {
	Key string
	// Reason is why there was no private network, "" when there was.
	Reason string
}

// surroundings names what the answer depends on, as far as that can be known
// for a few system calls.
func surroundings(program string) string {
	var b strings.Builder
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/self/attr/current"} {
		data, _ := os.ReadFile(path) // not everywhere
		fmt.Fprintf(&b, "%s ", strings.TrimSpace(string(data)))
	}
	ns, _ := os.Readlink("/proc/self/ns/net")
	var st unix.Stat_t
	_ = unix.Stat(program, &st) // zero is as good as any other key
	fmt.Fprintf(&b, "%s %s %d:%d %d.%d", ns, program, st.Dev, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
	return b.String()
}

// note writes down for Expect what came of a start of pasta. Where that fails, the
// next build knows nothing, which does no harm.
func note(o Options, failure error) {
	program, err := findPasta(o.Pasta)
	if o.Memory == "" || err != nil {
		return
	}
	m := remembered{Key: surroundings(program)}
	if failure != nil {
		m.Reason = failure.Error()
	}
	data, err := json.Marshal(m)
	if err != nil {
		return
	}
	if old, err := os.ReadFile(o.Memory); err == nil && string(old) == string(data) {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(o.Memory), filepath.Base(o.Memory)+"-")
	if err != nil {
		return
	}
	_, err = tmp.Write(data)
	if closeErr := tmp.Close(); err != nil || closeErr != nil || os.Rename(tmp.Name(), o.Memory) != nil {
		_ = os.Remove(tmp.Name())
	}
}
