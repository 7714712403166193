package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// htpasswd is the password file for the user "shale" with the password "secret".
const htpasswd = "shale:$2a$05$EUWyO4y2G3Um8HF5F.EQkOpgrJL4wFprM1YLWeDB/6/8YJfVXBo.2\n"

// serve runs command while two registries listen. The open registry offers every image in
// the directory images. It listens on addr or, if addr is "", on a free address.
func serve(ctx context.Context, images, addr string, command []string) error {
	work, err := os.MkdirTemp("", "shale-registry-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work) //nolint:errcheck // a temporary directory
	open, err := startRegistry(ctx, filepath.Join(work, "open"), addr, "")
	if err != nil {
		return err
	}
	defer open.stop()
	private, err := startRegistry(ctx, filepath.Join(work, "private"), "", htpasswd)
	if err != nil {
		return err
	}
	defer private.stop()
	// Use an empty file, because the user's file may be unreadable or missing.
	authFile := filepath.Join(work, "auth.json")
	if err := os.WriteFile(authFile, []byte("{}"), 0o600); err != nil {
		return err
	}
	if err := pushAll(ctx, images, open.addr, authFile); err != nil {
		return err
	}

	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "SHALE_REGISTRY="+open.addr, "SHALE_REGISTRY_AUTH="+private.addr)
	// The command is in our process group, so a terminal's Ctrl-C reaches it too. A
	// SIGTERM that is sent only to us must be passed on.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		// A command that was ended by a signal has no exit status.
		return commandError{code: max(exit.ExitCode(), 1)}
	}
	return err
}

// commandError is returned if the command run by serve failed. The command itself has
// printed the reason.
type commandError struct{ code int }

func (e commandError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// pushAll pushes each layout in dir. The name of the directory becomes the name of the
// repository.
func pushAll(ctx context.Context, dir, addr, authFile string) error {
	layouts, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil {
		return err
	}
	if len(layouts) == 0 {
		return fmt.Errorf("no image in %s", dir)
	}
	for _, layout := range layouts {
		path := filepath.Dir(layout)
		cmd := exec.CommandContext(ctx, "skopeo", "copy", "--quiet", "--all", "--insecure-policy", "--dest-tls-verify=false", "--authfile", authFile,
			"oci:"+path+":latest", "docker://"+addr+"/"+filepath.Base(path)+":latest")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("push %s: %w: %s", filepath.Base(path), err, out)
		}
	}
	return nil
}

// registry is a running docker-registry.
type registry struct {
	addr   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when err is set
	err    error
}

// startRegistry starts Debian's docker-registry with its storage in dir. It listens on
// addr or, if addr is "", on a free port of loopback. Another process may take that port
// before the registry listens, so startRegistry tries up to five times.
func startRegistry(ctx context.Context, dir, addr, passwords string) (*registry, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var errs []error
	for range 5 {
		r, err := tryRegistry(ctx, dir, addr, passwords)
		if err == nil {
			return r, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func tryRegistry(ctx context.Context, dir, addr, passwords string) (*registry, error) {
	if addr == "" {
		free, err := freeAddr(ctx)
		if err != nil {
			return nil, err
		}
		addr = free
	}
	config, err := writeConfig(dir, addr, passwords)
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command("docker-registry", "serve", config) //nolint:noctx // stopped by stop
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// In its own process group, Ctrl-C does not end it before the commands that use it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start docker-registry: %w", err)
	}
	r := &registry{addr: addr, cmd: cmd, exited: make(chan struct{})}
	go func() {
		defer close(r.exited)
		r.err = cmd.Wait()
	}()
	if err := r.ready(ctx); err != nil {
		r.stop()
		log, _ := os.ReadFile(logFile.Name())
		return nil, fmt.Errorf("%w\n%s", err, log)
	}
	return r, nil
}

// ready waits until the registry responds.
func (r *registry) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.addr+"/v2/", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return resp.Body.Close()
		}
		select {
		case <-r.exited:
			return fmt.Errorf("docker-registry ended: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("wait for docker-registry: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *registry) stop() {
	_ = r.cmd.Process.Kill()
	<-r.exited
}

// freeAddr returns a loopback address with a free port.
func freeAddr(ctx context.Context) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func writeConfig(dir, addr, passwords string) (string, error) {
	auth := ""
	if passwords != "" {
		file := filepath.Join(dir, "htpasswd")
		if err := os.WriteFile(file, []byte(passwords), 0o600); err != nil {
			return "", err
		}
		auth = fmt.Sprintf("auth:\n  htpasswd:\n    realm: shale\n    path: %s\n", file)
	}
	config := fmt.Sprintf(`version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  delete:
    enabled: true
  filesystem:
    rootdirectory: %s
http:
  addr: %s
%s`, filepath.Join(dir, "data"), addr, auth)
	file := filepath.Join(dir, "config.yml")
	return file, os.WriteFile(file, []byte(config), 0o600)
}
