// Package procs finds and signals the processes that descend from one.
//
// What a command starts has no name that is known from outside: a process leaves
// its group and session at will, and there may be no control group for the
// command. But an orphan gets the first process of its pid namespace, or the next
// subreaper (PR_SET_CHILD_SUBREAPER in prctl(2)), as its parent. So all that the
// first process or a subreaper started, and it alone, descends from it.
package procs

import (
	"bytes"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Running returns the number of processes that descend from root, without those
// that have ended and are still waited for.
func Running(root int) int {
	n := 0
	for _, pid := range descendants(root) {
		if st, ok := read(pid); ok && !st.ended {
			n++
		}
	}
	return n
}

// descendants returns the processes that descend from root, parents before their
// children.
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

// SignalAll sends a signal to all processes that descend from root, parents first,
// and returns their number, with those that have ended and are still waited for.
// Processes that are started meanwhile may be missed.
func SignalAll(root int, signal unix.Signal) int {
	list := descendants(root)
	for _, pid := range list {
		send(root, pid, signal)
	}
	return len(list)
}

// send signals pid unless it ended and its number was given to another process.
func send(root, pid int, signal unix.Signal) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		// Some seccomp profiles know no pidfds.
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

// HasDefault reports whether pid has the default action for a signal: neither a
// handler nor SIG_IGN. It is false where that cannot be read.
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

// stat is what proc_pid_stat(5) says of a process.
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

// numThreads is the field with the number of threads, counted from the third.
const numThreads = 17

// parse reads what follows the second field, a name in parentheses that may hold
// anything. A process whose first thread has ended is shown as a zombie while others
// go on.
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
