package recorded

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// The credentials of a thread are stored as a number in its timer slack
// (/proc/PID/timerslack_ns, proc_pid_timerslack_ns(5)). Each thread has its own slack,
// new threads and forks inherit it, and executed programs keep it. So the supervisor
// needs no table of processes, has no race with forks and nothing to clean up. The only
// side effect is that timers may fire some microseconds earlier or later.

// slack is the kernel's default, in nanoseconds. Larger values are slack plus the number
// of credentials. A thread with the default has the credentials with which the step
// began.
const slack = 50_000

// maxTags limits the number of different credentials in one step. maxTagBytes limits
// their size, because each may have 65,536 groups.
const (
	maxTags     = 1 << 16
	maxTagBytes = 64 << 20
)

var errTags = fmt.Errorf("too many different credentials in one step: %w", unix.EAGAIN)

// tagged is an entry for one number. It has credentials, or a pending change of them that
// depends on whether the thread has executed a program.
type tagged struct {
	creds   creds
	pending bool
	// then are the credentials if the program dev:ino was executed.
	then     creds
	dev, ino uint64
}

// key returns the same string for equal entries, so that they get one number.
func (t *tagged) key() string {
	b := t.creds.appendKey(nil)
	if t.pending {
		b = t.then.appendKey(append(b, '>'))
		b = strconv.AppendUint(append(b, '@'), t.dev, 36)
		b = strconv.AppendUint(append(b, ':'), t.ino, 36)
	}
	return string(b)
}

// tags has the entries of one step.
type tags struct {
	list  []tagged
	index map[string]int
	// bytes is the approximate size of the entries in memory.
	bytes int
}

func (t *tags) number(e tagged) (int, error) {
	k := e.key()
	if i, ok := t.index[k]; ok {
		return i, nil
	}
	size := len(k) + 4*(len(e.creds.groups)+len(e.then.groups))
	if len(t.list) >= maxTags || t.bytes+size > maxTagBytes {
		return 0, errTags
	}
	t.bytes += size
	if t.index == nil {
		t.index = map[string]int{}
	}
	t.list = append(t.list, e)
	t.index[k] = len(t.list)
	return len(t.list), nil
}

// at returns the entry for a value of the timer slack. It returns nil for the credentials
// with which the step began.
func (t *tags) at(slackNow int) *tagged {
	i := slackNow - slack - 1
	if i < 0 || i >= len(t.list) {
		return nil
	}
	return &t.list[i]
}

// creds returns the credentials of a thread. If a change is pending, creds finds out
// whether the thread has executed the program, and ends the pending state.
func (s *Supervisor) creds(tid int) (creds, error) {
	if len(s.tags.list) == 0 {
		return s.first, nil
	}
	n, err := s.readSlack(tid)
	if err != nil {
		return creds{}, err
	}
	e := s.tags.at(n)
	switch {
	case e == nil:
		return s.first, nil
	case !e.pending:
		return e.creds, nil
	}
	c := e.creds
	if s.runs(tid, e.dev, e.ino) {
		c = e.then
	}
	return c, s.setCreds(tid, c)
}

// runs reports whether the thread executes the file dev:ino.
func (s *Supervisor) runs(tid int, dev, ino uint64) bool {
	var st unix.Stat_t
	err := unix.Fstatat(s.proc, strconv.Itoa(tid)+"/exe", &st, 0)
	return err == nil && st.Dev == dev && st.Ino == ino
}

func (s *Supervisor) setCreds(tid int, c creds) error {
	return s.setTag(tid, tagged{creds: c})
}

func (s *Supervisor) setTag(tid int, e tagged) error {
	n := 0
	if e.pending || !e.creds.equal(s.first) {
		var err error
		if n, err = s.tags.number(e); err != nil {
			return err
		}
		s.fast.tag(n, e)
	}
	return s.writeSlack(tid, slack+n)
}

func (s *Supervisor) readSlack(tid int) (int, error) {
	fd, err := unix.Openat(s.proc, strconv.Itoa(tid)+"/timerslack_ns", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	var buf [32]byte
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(buf[:n])))
}

// writeSlack needs CAP_SYS_NICE for the thread. Root of the thread's user namespace has
// it.
func (s *Supervisor) writeSlack(tid, n int) error {
	fd, err := unix.Openat(s.proc, strconv.Itoa(tid)+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, strconv.AppendInt(nil, int64(n), 10))
	return errors.Join(err, unix.Close(fd))
}
