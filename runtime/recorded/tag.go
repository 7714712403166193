package recorded

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Which credentials a thread believes to have is a number in its timer slack
// (/proc/PID/timerslack_ns, proc_pid_timerslack_ns(5)): it is the thread's own,
// threads and forks inherit it, programs keep it. So there is no table of
// processes to keep, no race with forks and nothing to clean up. Some microseconds
// more or less before a timer fires are all the effect it has.

// slack is the kernel's default. Above it stand the numbers of credentials; a
// thread without one has those that the step began with.
const slack = 50_000

// maxTags bounds how many different credentials one step can have, maxTagBytes
// their size: each may have 65,536 groups.
const (
	maxTags     = 1 << 16
	maxTagBytes = 64 << 20
)

var errTags = fmt.Errorf("too many different credentials in one step: %w", unix.EAGAIN)

// tagged is what a number stands for: credentials, or a change of them that
// takes place if a program was executed.
type tagged struct {
	creds   creds
	pending bool
	// then are the credentials after the program dev:ino was executed.
	then     creds
	dev, ino uint64
}

// key makes equal entries one.
func (t *tagged) key() string {
	b := t.creds.appendKey(nil)
	if t.pending {
		b = t.then.appendKey(append(b, '>'))
		b = strconv.AppendUint(append(b, '@'), t.dev, 36)
		b = strconv.AppendUint(append(b, ':'), t.ino, 36)
	}
	return string(b)
}

// tags are the numbers of one step.
type tags struct {
	list  []tagged
	index map[string]int
	// bytes is about the memory that they take.
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

// at returns what a slack stands for, nil for the step's first credentials.
func (t *tags) at(slackNow int) *tagged {
	i := slackNow - slack - 1
	if i < 0 || i >= len(t.list) {
		return nil
	}
	return &t.list[i]
}

// creds returns the credentials of a thread. After a program with set-id bits
// they are settled here: the thread executed it or it did not.
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

// runs tells whether a thread executes the file.
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

// writeSlack needs CAP_SYS_NICE over the thread, which its namespace's root has.
func (s *Supervisor) writeSlack(tid, n int) error {
	fd, err := unix.Openat(s.proc, strconv.Itoa(tid)+"/timerslack_ns", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, strconv.AppendInt(nil, int64(n), 10))
	return errors.Join(err, unix.Close(fd))
}
