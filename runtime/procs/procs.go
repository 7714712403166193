// Package procs finds the descendants of a process and sends signals to them.
//
// The processes of a command cannot be found by group, session or control group. A
// process may leave its group and session at any time, and the command may have no
// control group of its own. But parents are reliable: if the parent of a process ends,
// the process gets a new parent. That is the first process of its pid namespace, or the
// next subreaper (PR_SET_CHILD_SUBREAPER in prctl(2)). So the descendants of a first
// process or a subreaper are exactly the processes that it started, directly or
// indirectly.
package procs

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Running returns the number of descendants of root. It does not count zombies, which
// have ended but were not waited for yet.
func Running(root int) int {
	n := 0
	for _, pid := range descendants(root) {
		if st, ok := read(pid); ok && !st.ended {
			n++
		}
	}
	return n
}

// descendants returns the descendants of root. Parents come before their children.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if st, ok := read(pid); ok {
			children[st.parent] = append(children[st.parent], pid)
		}
	}
	var found []int
	for next := []int{root}; len(next) > 0; next = next[1:] {
		found = append(found, children[next[0]]...)
		next = append(next, children[next[0]]...)
		delete(children, next[0])
	}
	return found
}

// SignalAll sends a signal to all descendants of root, parents first. It returns the
// number of descendants, including zombies. It may miss processes that are started
// meanwhile, so a caller that must reach all of them must repeat the call.
func SignalAll(root int, signal unix.Signal) int {
	list := descendants(root)
	for _, pid := range list {
		send(root, pid, signal)
	}
	return len(list)
}

// send signals pid if pid still is a descendant of root. The kernel may have given the
// number of an ended process to another one.
func send(root, pid int, signal unix.Signal) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		// Some seccomp profiles refuse pidfd_open(2).
		if !errors.Is(err, unix.ESRCH) {
			_ = unix.Kill(pid, signal)
		}
		return
	}
	defer func() { _ = unix.Close(fd) }()
	if descends(pid, root) {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			_ = unix.Kill(pid, signal)
		}
	}
}

func descends(pid, root int) bool {
	for pid > 1 {
		st, ok := read(pid)
		if !ok || st.parent == pid {
			return false
		}
		if st.parent == root {
			return true
		}
		pid = st.parent
	}
	return false
}

// HasDefault reports whether pid has the default action for a signal, that is, neither a
// handler nor SIG_IGN. It returns false if the process cannot be read.
func HasDefault(pid int, signal unix.Signal) bool {
	data, err := os.ReadFile(path(pid, "status"))
	if err != nil {
		return false
	}
	for _, name := range []string{"SigIgn:", "SigCgt:"} {
		_, rest, ok := bytes.Cut(data, []byte("\n"+name))
		if !ok {
			return false
		}
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		set, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
		if err != nil || set&(1<<(uint(signal)-1)) != 0 {
			return false
		}
	}
	return true
}

// stat holds the used fields of proc_pid_stat(5).
type stat struct {
	parent int
	ended  bool
}

func read(pid int) (stat, bool) {
	data, err := os.ReadFile(path(pid, "stat"))
	if err != nil {
		return stat{}, false
	}
	return parse(data)
}

// numThreads is the index of the number of threads, counted from the third field.
const numThreads = 17

// parse parses a stat file from its third field on. The second field is a name in
// parentheses, which may contain any characters. If the first thread of a process has
// ended, the file shows a zombie even if other threads still run. Such a process has not
// ended.
func parse(data []byte) (stat, bool) {
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) <= numThreads {
		return stat{}, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	threads, threadsErr := strconv.Atoi(string(fields[numThreads]))
	ended := bytes.ContainsAny(fields[0], "ZX") && threads <= 1
	return stat{parent: parent, ended: ended}, err == nil && threadsErr == nil
}

func path(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }
