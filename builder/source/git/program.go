package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoGit is returned if there is no git program, or if it is too old.
var ErrNoGit = errors.New("git repositories need the git program")

// oldest is the first version that can take its whole configuration from the environment
// (GIT_CONFIG_COUNT, GIT_CONFIG_GLOBAL). An older version would ignore the settings that
// protect against hostile repositories.
var oldest = [2]int{2, 32}

var versionText = regexp.MustCompile(`^git version (\d+)\.(\d+)`)

// program finds the git program. It searches only once.
type program struct {
	once sync.Once
	path string
	err  error
}

func (p *program) find() (string, error) {
	p.once.Do(func() { p.path, p.err = findGit() })
	return p.path, p.err
}

func findGit() (string, error) {
	bin, err := exec.LookPath("git")
	if err != nil {
		return "", fmt.Errorf("%w, which is not in PATH: install it (Debian, Fedora and Alpine call the package git)", ErrNoGit)
	}
	cmd := exec.Command(bin, "version") //nolint:noctx // asks nobody
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w, and %s does not run: %w", ErrNoGit, bin, err)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%w, and %s does not print its version", ErrNoGit, bin)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return "", fmt.Errorf("%w of version %d.%d or later; %s is %d.%d", ErrNoGit, oldest[0], oldest[1], bin, major, minor)
	}
	return bin, nil
}

// config is one configuration value.
type config struct{ key, value string }

// hardened is the configuration of every command.
var hardened = []config{
	{"core.hooksPath", "/dev/null"},
	{"core.fsmonitor", "false"},
	{"core.askPass", ""},
	{"core.autocrlf", "false"},
	{"core.fileMode", "true"},
	{"core.symlinks", "true"},
	{"credential.helper", ""},
	{"gc.auto", "0"},
	{"maintenance.auto", "false"},
	{"fetch.unpackLimit", "1"}, // a pack is stored completely or not at all
	{"pack.threads", "1"},      // the bytes of a pack do not depend on the machine
	{"init.defaultBranch", "master"},
	{"advice.detachedHead", "false"},
	{"submodule.recurse", "false"},
	{"http.lowSpeedLimit", "100"},
	{"http.lowSpeedTime", "60"},
}

// passed are the environment variables of this process that git receives.
var passed = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	"http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "GIT_SSL_NO_VERIFY", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR",
}

// Values of GIT_ALLOW_PROTOCOL.
const (
	remoteProtocols = "http:https:ssh:git"
	localProtocol   = "file"
)

// command is a git command without its arguments.
type command struct {
	bin       string
	dir       string // working directory
	gitDir    string
	workTree  string
	protocols string
	config    []config
	env       []string
	// secrets are replaced in the output of git.
	secrets []string
	// stderr receives the messages of git if the command succeeds. It may be nil. If the
	// command fails, the messages are part of the error.
	stderr io.Writer
}

func (c command) with(more ...config) command {
	c.config = append(slices.Clip(c.config), more...)
	return c
}

// Error is returned if a git command failed. Stderr holds the end of its messages,
// without secrets.
type Error struct {
	Command string
	Stderr  string
	Err     error
}

func (e *Error) Error() string {
	text := fmt.Sprintf("git %s: %v", e.Command, e.Err)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	if hint := hint(e.Stderr); hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// hint returns advice for a known message, or "".
func hint(stderr string) string {
	for _, h := range []struct{ sign, advice string }{
		{"could not read Username", "a private repository needs a token: --secret id=GIT_AUTH_TOKEN"},
		{"could not read Password", "a private repository needs a token: --secret id=GIT_AUTH_TOKEN"},
		{"Authentication failed", "was the token right? --secret id=GIT_AUTH_TOKEN"},
		{"Permission denied (publickey", "does the agent have the key? --ssh default"},
		{"Host key verification failed", "the host's key is not in ~/.ssh/known_hosts or /etc/ssh/ssh_known_hosts, or has changed"},
		{"The requested URL returned error: 30", "the server redirects elsewhere; credentials are not sent there, so give the address that it redirects to"},
		{"transport 'file' not allowed", "submodules cannot be files of this machine"},
	} {
		if strings.Contains(stderr, h.sign) {
			return h.advice
		}
	}
	return ""
}

// Limits for the output of git that is kept, in bytes.
const (
	maxOutput = 16 << 20
	maxStderr = 8 << 10
)

// run runs git and returns its standard output. It returns an *Error if git fails or
// prints more than maxOutput bytes. If ctx is cancelled, it returns the cause.
func (c command) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.bin, args...)
	cmd.Dir = c.dir
	cmd.Env = c.environ()
	stdout := &capped{max: maxOutput}
	stderr := &capped{max: maxStderr, tail: true}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// Git's helper processes could outlive it, so the whole process group is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second

	// The kernel sends the Pdeathsig signal when the thread ends that started the
	// process.
	runtime.LockOSThread()
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
		if ctx.Err() != nil {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		}
	}
	runtime.UnlockOSThread()
	text := strings.TrimSpace(c.redact(stderr.String()))
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if stdout.full {
		err = fmt.Errorf("more than %d bytes of output", maxOutput)
	}
	if err != nil {
		return nil, &Error{Command: args[0], Stderr: text, Err: err}
	}
	if c.stderr != nil && text != "" {
		_, _ = io.WriteString(c.stderr, text+"\n")
	}
	return stdout.Bytes(), nil
}

// line runs a command that prints one line, and returns that line.
func (c command) line(ctx context.Context, args ...string) (string, error) {
	out, err := c.run(ctx, args...)
	return strings.TrimSpace(string(out)), err
}

func (c command) redact(text string) string {
	for _, s := range c.secrets {
		text = strings.ReplaceAll(text, s, "****")
	}
	return text
}

// environ returns the complete environment of the command.
func (c command) environ() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C",
		"HOME=/dev/null",
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_ATTR_NOSYSTEM=1",
		"GIT_TEMPLATE_DIR=",
		"GIT_TERMINAL_PROMPT=0",
		"GIT_NO_REPLACE_OBJECTS=1",
		"GIT_ALLOW_PROTOCOL=" + c.protocols,
	}
	if c.gitDir != "" {
		env = append(env, "GIT_DIR="+c.gitDir)
	}
	if c.workTree != "" {
		env = append(env, "GIT_WORK_TREE="+c.workTree)
	}
	for _, name := range passed {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	if file, ok := os.LookupEnv("SSL_CERT_FILE"); ok && os.Getenv("GIT_SSL_CAINFO") == "" {
		env = append(env, "GIT_SSL_CAINFO="+file)
	}
	env = append(env, c.env...)
	n := 0
	for _, list := range [][]config{hardened, c.config} {
		for _, v := range list {
			env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", n, v.key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", n, v.value))
			n++
		}
	}
	return append(env, "GIT_CONFIG_COUNT="+strconv.Itoa(n))
}

// capped keeps the first max bytes that are written to it. If tail is set, it keeps the
// last ones.
type capped struct {
	bytes.Buffer
	max  int
	tail bool
	full bool
}

func (b *capped) Write(p []byte) (int, error) {
	_, _ = b.Buffer.Write(p)
	if over := b.Len() - b.max; over > 0 {
		b.full = true
		if b.tail {
			b.Next(over)
		} else {
			b.Truncate(b.max)
			return 0, io.ErrShortWrite
		}
	}
	return len(p), nil
}
