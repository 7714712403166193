package scope_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shale-build/shale/runtime/scope"
	"github.com/shale-build/shale/runtime/scope/scopetest"
)

const home = "/user.slice/user-1000.slice"

// place holds the process's control group, which a Manager changes.
type place struct {
	mu   sync.Mutex
	path string
}

func (p *place) move(name string, pid int) error {
	if pid != os.Getpid() {
		return errors.New("another process")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.path = home + "/app.slice/" + name
	return nil
}

func (p *place) current() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path == "" {
		return home + "/session-1.scope"
	}
	return p.path
}

func listen(t *testing.T, socket string, m *scopetest.Manager) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	m.UID = 1000
	go m.Serve(l, nil)
	t.Cleanup(func() { _ = l.Close() })
}

func TestEnter(t *testing.T) {
	stays := func(string, int) error { return nil }
	tests := []struct {
		name, socket string
		manager      scopetest.Manager
		want         string // part of the error; "" if Enter must succeed
	}{
		{"systemd's own socket", "systemd/private", scopetest.Manager{}, ""},
		{"bus", "bus", scopetest.Manager{Bus: true}, ""},
		{"another user's", "bus", scopetest.Manager{Bus: true, Refuses: true}, "bus: dbus: authentication failed"},
		{"no systemd on the bus", "bus", scopetest.Manager{Bus: true, Fault: "org.freedesktop.DBus.Error.ServiceUnknown"}, "bus: the reason"},
		{"no answer", "bus", scopetest.Manager{Bus: true, Fault: scopetest.Silent}, "bus: the test's end"},
		{"not moved", "systemd/private", scopetest.Manager{Start: stays}, "did not move the process into shale-"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, at := t.TempDir(), &place{}
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if tt.manager.Fault == scopetest.Silent || tt.manager.Start != nil {
				ctx, cancel = context.WithTimeoutCause(ctx, 300*time.Millisecond, errors.New("the test's end"))
			}
			defer cancel()
			if tt.manager.Start == nil {
				tt.manager.Start = at.move
			}
			listen(t, filepath.Join(dir, tt.socket), &tt.manager)
			got, err := scope.Enter(ctx, scope.Options{UID: 1000, Cgroup: at.current, Sockets: []string{
				filepath.Join(dir, "systemd/private"), filepath.Join(dir, "bus"),
			}})
			if tt.want == "" {
				if err != nil || !strings.HasPrefix(got, home+"/app.slice/shale-"+strconv.Itoa(os.Getpid())+"-") {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, scope.ErrNoManager) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// If a socket does not exist, refuses connections or rejects the client, Enter must try
// the next one.
func TestEnterByNextSocket(t *testing.T) {
	dir, at := t.TempDir(), &place{}
	sockets := []string{"none", "closed", "refuses", "bus"}
	for i, s := range sockets {
		sockets[i] = filepath.Join(dir, s)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sockets[1], Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	listen(t, sockets[2], &scopetest.Manager{Refuses: true, Start: at.move})
	listen(t, sockets[3], &scopetest.Manager{Bus: true, Start: at.move})
	got, err := scope.Enter(t.Context(), scope.Options{UID: 1000, Cgroup: at.current, Sockets: sockets})
	if err != nil || got != at.current() {
		t.Errorf("got %q, %v", got, err)
	}
	_, err = scope.Enter(t.Context(), scope.Options{UID: 1000, Cgroup: at.current, Sockets: sockets[:2]})
	if !errors.Is(err, scope.ErrNoManager) {
		t.Errorf("with nobody there: %v", err)
	}
}
