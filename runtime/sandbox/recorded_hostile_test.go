package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/sandbox"
)

// usrRootfs creates a root file system with the machine's own programs, including perl.
func usrRootfs(t *testing.T) (root string, mounts []sandbox.Mount) {
	t.Helper()
	root = filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"usr", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"bin", "lib", "lib64", "sbin"} {
		if _, err := os.Stat(filepath.Join("/usr", l)); err != nil {
			continue
		}
		if err := os.Symlink(filepath.Join("usr", l), filepath.Join(root, l)); err != nil {
			t.Fatal(err)
		}
	}
	return root, []sandbox.Mount{{Source: "/usr", Target: "/usr", ReadOnly: true}}
}

func runRecorded(t *testing.T, s sandbox.Spec) (code int, out string, err error) {
	t.Helper()
	return runIn(t, newRunner(t), s)
}

func runIn(t *testing.T, r *sandbox.Runner, s sandbox.Spec) (code int, out string, err error) {
	t.Helper()
	var buf bytes.Buffer
	s.Stdout, s.Stderr = &buf, &buf
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	code, err = r.Run(ctx, s)
	return code, buf.String(), err
}

// Files outside the root file system must not change.
func TestRecordedConfinement(t *testing.T) {
	root := newRootfs(t)
	link(t, root, "chown")
	outside := filepath.Join(filepath.Dir(root), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Lstat(outside, &before); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 30)
	var script strings.Builder
	for _, p := range []string{
		outside, up[:len(up)-1] + outside, "/proc/1/root" + outside, "/proc/self/root/" + up + outside[1:],
		"/proc/1/cwd/" + up + outside[1:], "/proc/self/cwd/" + up + outside[1:], "/tmp/link", "/tmp/up/" + outside[1:],
		"/proc/self/fd/../root" + outside, "/proc/thread-self/root/" + up + outside[1:], "/dev/fd/../../../.." + outside,
	} {
		for _, command := range []string{"chown 5:5 %q", "chown -h 5:5 %q", "mknod %q-n c 1 3", "mkdir %q-d", "touch %q-t", "ln -s x %q-l"} {
			fmt.Fprintf(&script, command+" 2>/dev/null\n", p)
		}
	}
	s := recordedSpec(root, "ln -s "+outside+" /tmp/link; ln -s "+up+" /tmp/up; cd /tmp; umask 0\n"+script.String()+"true")
	for _, user := range []uint32{0, 1000} {
		s.UID, s.GID = user, user
		if code, out, err := runRecorded(t, s); err != nil || code != 0 {
			t.Fatalf("code %d, %v\n%s", code, err, out)
		}
	}
	if err := unix.Lstat(outside, &after); err != nil || before != after {
		t.Errorf("a file outside was changed: %+v, now %+v, %v", before, after, err)
	}
	if _, err := unix.Lgetxattr(outside, recorded.Attribute, nil); err == nil {
		t.Error("a file outside has an owner recorded")
	}
	entries, err := os.ReadDir(filepath.Dir(outside))
	if err != nil || len(entries) != 2 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
}

// A step must not reach a file outside by changing a path while the supervisor uses it.
func TestRecordedRace(t *testing.T) {
	root, mounts := usrRootfs(t)
	s := recordedSpec(root, "")
	s.Mounts = mounts
	outside := filepath.Join(filepath.Dir(root), "outside")
	if err := os.MkdirAll(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Args = []string{"/usr/bin/perl", "-e", `
mkdir "/tmp/a"; mkdir "/tmp/a/d"; symlink("` + strings.Repeat("../", 30) + outside[1:] + `", "/tmp/b");
my $kid = fork;
if (!$kid) { while (1) { rename("/tmp/a/d", "/tmp/c"); rename("/tmp/b", "/tmp/a/d"); rename("/tmp/a/d", "/tmp/b"); rename("/tmp/c", "/tmp/a/d"); } }
$> = 1000;
my $end = time + 2;
while (time < $end) {
  chown(7, 7, "/tmp/a/d"); mkdir("/tmp/a/d/m"); open(F, ">", "/tmp/a/d/f"); close F; symlink("x", "/tmp/a/d/l");
  unlink("/tmp/a/d/f", "/tmp/a/d/l"); rmdir "/tmp/a/d/m";
}
kill 9, $kid; wait; print "ok\n";`}
	if code, out, err := runRecorded(t, s); err != nil || code != 0 || out != "ok\n" {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 0 {
		t.Errorf("made outside: %v, %v", entries, err)
	}
	if _, err := unix.Lgetxattr(outside, recorded.Attribute, nil); err == nil {
		t.Error("a directory outside has an owner recorded")
	}
}

// Signals must not repeat a call that creates a file, nor lose its file descriptor. The
// handler uses SA_RESTART: without it, the kernel may end each supervised call with
// EINTR.
func TestRecordedSignals(t *testing.T) {
	root, mounts := usrRootfs(t)
	s := recordedSpec(root, "")
	s.Mounts, s.UID, s.GID = mounts, 1000, 1000
	s.Args = []string{"/usr/bin/perl", "-e", `
use Time::HiRes qw(setitimer ITIMER_REAL); use Fcntl; use POSIX;
my $seen = 0; my $act = POSIX::SigAction->new(sub { $seen++ }, POSIX::SigSet->new, SA_RESTART); $act->safe(1);
sigaction(SIGALRM, $act); setitimer(ITIMER_REAL, 0.0005, 0.0005);
for my $i (1..1000) {
  sysopen(my $f, "/tmp/$i", O_RDWR|O_CREAT|O_EXCL, 0600) or die "create $i: $!";
  fileno($f) > 2 or die "descriptor " . fileno($f);
  syswrite($f, "$i") == length($i) or die "write $i: $!";
  mkdir("/tmp/d$i") or die "mkdir $i: $!";
  close $f;
  open(my $r, "<", "/tmp/$i"); my $got = <$r>; $got eq "$i" or die "$i has $got";
  (stat "/tmp/$i")[4] == 1000 or die "owner of $i";
  $> == 1000 or die "user";
}
print $seen > 10 ? "ok\n" : "too few signals: $seen\n";`}
	if code, out, err := runRecorded(t, s); err != nil || code != 0 || out != "ok\n" {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
}

// A change of owner through a file descriptor must be recorded. The record must be
// removed when the change is undone.
func TestRecordedDescriptors(t *testing.T) {
	root, mounts := usrRootfs(t)
	s := recordedSpec(root, "")
	s.Mounts = mounts
	s.Args = []string{"/usr/bin/perl", "-e", `
sub owner { my @s = stat $_[0]; "$s[4]:$s[5]" }
open(my $f, ">", "/tmp/f") or die; chmod 04755, "/tmp/f";
for my $to ([0, 0], [-1, 0], [5, 6], [-1, 7], [0, -1], [8, 9], [0, 0], [-1, -1]) {
  chown(@$to, $f) or die "chown @$to: $!";
  print owner($f), owner("/tmp/f") eq owner($f) ? " " : "? ";
}
printf "%o\n", (stat $f)[2] & 07777;
pipe(my $r, my $w); open(my $null, ">", "/dev/null");
for my $h ($r, $w, $null) { chown(0, 0, $h) or die "chown: $!"; chown(5, 5, $h) or die "chown: $!" }
my $gone = 3 + 40; open(my $none, ">&=$gone") and die "$gone is open";
$> = 1000; chown(0, 0, $f) and die "a user took a file";
print "ok\n";`}
	if code, out, err := runRecorded(t, s); err != nil || code != 0 || out != "0:0 0:0 5:6 5:7 0:7 8:9 0:0 0:0 755\nok\n" {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
}

// Many processes that run at the same time must keep their own identities, and none may
// outlive the step.
func TestRecordedForks(t *testing.T) {
	root, mounts := usrRootfs(t)
	s := recordedSpec(root, "")
	s.Mounts = mounts
	s.Args = []string{"/usr/bin/perl", "-e", `
my $bad = 0;
for my $round (1..5) {
  my @kids;
  for my $i (1..100) {
    my $kid = fork;
    if (!$kid) {
      use POSIX; POSIX::setgid(2000+100*$round+$i); POSIX::setuid(1000+100*$round+$i);
      my $sub = fork;
      if ($sub) { waitpid($sub, 0); exit($? >> 8) }
      open(F, ">", "/tmp/f$round-$i"); close F;
      my @st = stat "/tmp/f$round-$i";
      my $own = 1000+100*$round+$i;
      exit($< == $own && $> == $own && $st[4] == $own && $st[5] == 1000+$own && !POSIX::setuid(0) ? 0 : 1);
    }
    push @kids, $kid;
  }
  for (@kids) { waitpid($_, 0); $bad++ if $? }
}
for (1..50) { if (!fork) { while (1) { stat "/"; $x = $<; } } } # left running
print $bad ? "$bad wrong\n" : "ok\n";`}
	if code, out, err := runRecorded(t, s); err != nil || code != 0 || out != "ok\n" {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
}

// If the calls of a step cannot be answered, the step must end and Run must return the
// reason.
func TestRecordedFailure(t *testing.T) {
	s := recordedSpec(newRootfs(t), "sleep 60")
	s.Upper = filepath.Join(t.TempDir(), "none")
	_, out, err := runRecorded(t, s)
	if err == nil || !strings.Contains(err.Error(), "upper directory") {
		t.Errorf("%v\n%s", err, out)
	}
}
