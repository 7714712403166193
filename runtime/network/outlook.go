package network

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Outlook is a prediction of a build's network before the network is set up.
type Outlook struct {
	Mode Mode // Host, None or Private
	// Reason is the reason for which Default will get the host's network.
	Reason string
	// Tried is true if the last build under the same conditions got a private network. If
	// it is false and Mode is Private, Setup may still fail.
	Tried bool
}

// Expect predicts the result of Setup for a mode, without setting up a network. It uses
// the result that the last Setup recorded in the file memory (see Options). It ignores
// that result if the machine was rebooted, pasta was replaced, or the process has another
// security label or another network namespace.
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

// expected returns the outlook if the last attempt failed for reason.
func expected(mode Mode, reason string) Outlook {
	if mode == Private {
		// The user asked for Private, so Setup must report the error.
		return Outlook{Mode: Private}
	}
	return Outlook{Mode: Host, Reason: reason}
}

// remembered is the content of a memory file.
type remembered struct {
	Key string
	// Reason is the reason for which there was no private network, or "" if there was
	// one.
	Reason string
}

// surroundings returns a key for the facts that the result depends on. It covers only
// facts that cost a few system calls.
func surroundings(program string) string {
	var b strings.Builder
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/self/attr/current"} {
		data, _ := os.ReadFile(path) // may not exist
		fmt.Fprintf(&b, "%s ", strings.TrimSpace(string(data)))
	}
	ns, _ := os.Readlink("/proc/self/ns/net")
	var st unix.Stat_t
	_ = unix.Stat(program, &st) // zero is a valid key too
	fmt.Fprintf(&b, "%s %s %d:%d %d.%d", ns, program, st.Dev, st.Ino, st.Ctim.Sec, st.Ctim.Nsec)
	return b.String()
}

// note records the result of a start of pasta for Expect. It ignores errors: the next
// build then has no prediction, which does no harm.
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
