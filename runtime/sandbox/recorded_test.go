package sandbox_test

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/sandbox"
)

// recordedSpec returns a Spec for a step with recorded ownership.
func recordedSpec(root, script string) sandbox.Spec {
	s := shell(root, script)
	s.SingleID, s.Owners, s.Ownership = true, recorded.New(), recorded.TierFull
	return s
}

func TestRecordedOwnership(t *testing.T) {
	r := newRunner(t)
	tests := []struct {
		name     string
		script   string
		uid, gid uint32
		groups   []uint32
		want     string
	}{
		{name: "chown and stat", script: `touch /tmp/a; chown 12:34 /tmp/a; stat -c %u:%g /tmp/a; cd /tmp; chown 5 a; stat -c %u:%g a`, want: "12:34\n5:34\n"},
		{name: "link", script: `ln -s none /tmp/l; busybox chown -h 7:8 /tmp/l; stat -c %u:%g /tmp/l; busybox mkfifo /tmp/f; chown 3:4 /tmp/f; stat -c '%u:%g %F' /tmp/f`, want: "7:8\n3:4 fifo\n"},
		{name: "hard link", script: `touch /tmp/a; chown 7 /tmp/a; ln /tmp/a /tmp/b; rm /tmp/a; stat -c %u:%h /tmp/b`, want: "7:1\n"},
		{name: "device", script: `mknod /tmp/n c 1 3; chmod 640 /tmp/n; stat -c '%F %t:%T %a' /tmp/n; mknod /tmp/b b 7 9; stat -c '%F %t:%T' /tmp/b`, want: "character special file 1:3 640\nblock special file 7:9\n"},
		{name: "user", uid: 1000, gid: 100, groups: []uint32{100, 44}, script: `id -u; id -g; id -G; touch /tmp/a; mkdir /tmp/d; ln -s x /tmp/l; stat -c %u:%g /tmp/a /tmp/d /tmp/l`, want: "1000\n100\n100 44\n1000:100\n1000:100\n1000:100\n"},
		{name: "user may not give away", uid: 1000, gid: 100, groups: []uint32{100, 44}, script: `touch /tmp/a; chown 0 /tmp/a 2>/dev/null || echo no; chown :44 /tmp/a; chown :45 /tmp/a 2>/dev/null || echo no; stat -c %u:%g /tmp/a; chown 1000 /bin/busybox 2>/dev/null || echo no`, want: "no\nno\n1000:44\nno\n"},
		{name: "umask", uid: 1000, gid: 100, script: `umask 027; echo x >/tmp/a; mkdir /tmp/d; stat -c %a /tmp/a /tmp/d; cat /tmp/a; echo y >>/tmp/a; cat /tmp/a`, want: "640\n750\nx\nx\ny\n"},
		{name: "set-gid directory", script: `mkdir /tmp/d; chown 0:50 /tmp/d; chmod 2775 /tmp/d; touch /tmp/d/a; mkdir /tmp/d/e; ln -s x /tmp/d/l; stat -c %u:%g:%a /tmp/d/a /tmp/d/e; stat -c %g /tmp/d/l`, want: "0:50:644\n0:50:2755\n50\n"},
		{name: "set-uid program", uid: 1000, gid: 100, script: `id -u; /tmp/su root -c 'id -u'; id -u`, want: "1000\n0\n1000\n"},
		{name: "su", script: `printf 'root:x:0:0:r:/:/bin/sh\napp:x:1000:1000:a:/:/bin/sh\n' >/etc/passwd; busybox su app -c 'id -u; touch /tmp/a; stat -c %u:%g /tmp/a'; id -u; stat -c %u /tmp/a`, want: "1000\n1000:1000\n0\n1000\n"},
		{name: "descriptors", uid: 1000, gid: 100, script: `exec 5>/tmp/a; echo hi >&5; cat /tmp/a; chown 1000:100 /dev/stdout /proc/self/fd/5; stat -L -c %u /proc/self/fd/5`, want: "hi\n1000\n"},
		{
			name: "names", script: `mkdir -p /tmp/d/e; cd /tmp/d; touch f; chown 12:34 f; ln -s f l; exec 5<f; cd e; stat -c %u:%g /tmp/d/f ../f /proc/self/cwd/../f; stat -L -c %u:%g ../l /dev/fd/5; stat -c %u ../l; stat -c %u ../none 2>/dev/null || echo none; ` +
				`cd /tmp; n=$(printf %0200d 1); for i in 1 2 3 4; do mkdir $n; cd $n; done; touch f; chown 5 f; cd /tmp; stat -c %u $n/$n/$n/$n/f $n/$n/$n/$n /tmp/$n/$n/$n/$n/f`,
			want: "12:34\n12:34\n12:34\n12:34\n12:34\n0\nnone\n5\n0\n5\n",
		},
		{
			name: "beside links", script: `touch /tmp/a /tmp/b; ln -s a /tmp/m; chown 5 /tmp/b; ln -s a /tmp/l; busybox chown -h 7:8 /tmp/l; stat -c %u:%g /tmp/a /tmp/b /tmp/l /tmp/m; mv /tmp/l /tmp/k; mv /tmp/b /tmp/c; stat -c %u:%g /tmp/k /tmp/c; rm /tmp/k; ln -s a /tmp/k; stat -c %u /tmp/k`,
			want: "0:0\n5:0\n7:8\n0:0\n7:8\n5:0\n0\n",
		},
		{
			name: "to root", script: `touch /tmp/a /tmp/b; chown 5:6 /tmp/a; chmod 4755 /tmp/a /tmp/b; exec 5</tmp/a 6</tmp/b; chown 0:0 /dev/fd/5; chown 0 /tmp/b; stat -c %u:%g:%a /tmp/a /tmp/b; cp -p /tmp/a /tmp/c; stat -c %u:%g /tmp/c`,
			want: "0:0:755\n0:0:755\n0:0\n",
		},
		{
			name: "links to nothing", uid: 1000, gid: 100, script: `cd /tmp; mkdir d; ln -s new l; ln -s /tmp/d/n m; ln -s ./m k; ln -s d/../d/o r; ln -s loop loop; ln -s ex x; echo 1 >l; echo 2 >k; echo 3 >>r; stat -c %u:%g new d/n d/o; cat new d/n l; ` +
				`(set -C; echo 4 >x) 2>/dev/null || echo no; (echo 5 >loop) 2>/dev/null || echo no; echo 6 >/dev/stdout; ln -s /proc/self/fd/1 out; echo 7 >out; ln -s none/f y; (echo 8 >y) 2>/dev/null || echo no; ls d`,
			want: "1000:100\n1000:100\n1000:100\n1\n2\n1\nno\nno\n6\n7\nno\nn\no\n",
		},
		{name: "link into a set-gid directory", script: `mkdir /tmp/d; chown 0:50 /tmp/d; chmod 2775 /tmp/d; ln -s d/f /tmp/l; echo 1 >/tmp/l; echo 2 >>/tmp/l; stat -c %u:%g:%a /tmp/d/f; cat /tmp/l; ln -s /tmp/g /tmp/d/m; echo 3 >/tmp/d/m; stat -c %u:%g /tmp/g`, want: "0:50:644\n1\n2\n0:0\n"},
		{name: "chroot", script: `mkdir -p /tmp/r/bin /tmp/r/etc; cp /bin/busybox /tmp/r/bin/; touch /tmp/r/etc/f /etc/f; busybox chroot /tmp/r /bin/busybox chown 9:9 /etc/f; stat -c %u /tmp/r/etc/f /etc/f`, want: "9\n0\n"},
	}
	for name, owners := range map[string]func() *recorded.Owners{"in attributes": recorded.New, "beside": recorded.NewBeside} {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				root := newRootfs(t)
				for _, n := range []string{"chown", "cp"} {
					link(t, root, n)
				}
				s := recordedSpec(root, tt.script)
				s.Owners = owners()
				s.UID, s.GID, s.AdditionalGIDs = tt.uid, tt.gid, tt.groups
				if tt.name == "set-uid program" {
					setuid(t, root)
				}
				var out bytes.Buffer
				s.Stdout, s.Stderr = &out, &out
				code, err := r.Run(t.Context(), s)
				if err != nil || code != 0 {
					t.Fatalf("code %d, %v\n%s", code, err, out.String())
				}
				if got := out.String(); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", strings.TrimSpace(got), tt.want)
				}
				if s.Owners.Beside() {
					withoutRecords(t, root)
				}
			})
		}
	}
}

// withoutRecords checks that no file has an owner in an extended attribute.
func withoutRecords(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, err := unix.Lgetxattr(name, recorded.Attribute, nil); err == nil {
			t.Errorf("%s has a record", name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
