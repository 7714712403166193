//go:build e2e

// Package e2e runs the scenarios of tests/scripts against the built binary, as the
// current user. Users of shale normally have no privileges; scenarios for root have
// conditions of their own. Every scenario has its own home, runtime directory and store.
// The commands of scenarios are described in tests/README.md.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"gitserve":     main1(gitserve),
		"layerls":      main1(layerls),
		"usersystemd":  main1(usersystemd),
		"ocicheck":     main1(ocicheck),
		"mktree":       main1(mktree),
		"sshkeys":      main1(sshkeys),
		"registrylog":  main1(registrylog),
		"tlsproxy":     main1(tlsproxy),
		"recipe":       main1(recipe),
		"forge":        main1(forge),
		"without":      main1(without),
		"verifylayers": main1(verifyLayers),
		"killeach":     main1(killEach),
	})
}

// main1 makes a program from a function that takes the program's arguments.
func main1(f func(args []string) error) func() {
	return func() {
		if err := f(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 need(t, "SHALE_SCRIPTS"),
		Setup:               func(env *testscript.Env) error { return setup(t, env) },
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"leftovers":  leftovers,
			"killrandom": killRandom,
			"waitfor":    waitFor,
			"faster":     faster,
			"count":      count,
			"timed":      timed,
			"ran":        ran,
			"freeport":   freePort,
			"until":      until,
		},
		Condition: func(name string) (bool, error) {
			if name == "tun" {
				// pasta needs this device. Not every machine lets users open it.
				file, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
				return err == nil && file.Close() == nil, nil
			}
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

// need returns the value of an environment variable that the caller must set. It fails
// the test instead of skipping it, because a suite that does not run must not look like
// one that passed.
func need(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run make e2e", name)
	}
	return value
}

// setup gives a scenario its own home, runtime directory and store.
func setup(t *testing.T, env *testscript.Env) error {
	// Use a directory outside the working directory, which is used as a build context.
	private, err := os.MkdirTemp("", "shale-scenario-")
	if err != nil {
		return err
	}
	// The path must be short, because podman creates sockets below it.
	runtimeDir, err := os.MkdirTemp("/tmp", "sh")
	if err != nil {
		return err
	}
	env.Setenv("SCENARIO", private)
	env.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	env.Defer(func() { cleanUp(t, env) })
	home, bin, tmp := filepath.Join(private, "home"), filepath.Join(private, "bin"), filepath.Join(private, "tmp")
	conf := filepath.Join(home, ".config", "containers")
	for _, dir := range []string{bin, tmp, conf} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(need(t, "SHALE_BIN"), filepath.Join(bin, "shale")); err != nil {
		return err
	}

	if container := os.Getenv("SHALE_CONTAINER"); container != "" {
		// The program that starts containers, and the root file system of the containers.
		if err := os.Symlink(container, filepath.Join(bin, "container")); err != nil {
			return err
		}
		env.Setenv("ROOTFS", need(t, "SHALE_ROOTFS"))
	}
	store := filepath.Join(home, ".local", "share", "containers", "storage")
	registry, locked := need(t, "SHALE_REGISTRY"), need(t, "SHALE_REGISTRY_AUTH")
	storageConf := "[storage]\ndriver = \"overlay\"\n"
	if os.Geteuid() == 0 {
		// The default for root is the machine's own store.
		storageConf += fmt.Sprintf("graphroot = %q\nrunroot = %q\n", store, filepath.Join(runtimeDir, "containers"))
	}
	for name, content := range map[string]string{
		"storage.conf":    storageConf,
		"registries.conf": registriesConf(registry, locked),
		"policy.json":     `{"default":[{"type":"insecureAcceptAnything"}]}`,
		// Settings of podman that work everywhere: the host's network, no systemd and no
		// labels. Debian's SELinux policy has no labels for containers.
		"containers.conf": "[containers]\nnetns = \"host\"\nlabel = false\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
	} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	path := filepath.SplitList(os.Getenv("PATH"))
	env.Setenv("PATH", strings.Join(append([]string{bin}, path...), ":"))
	env.Setenv("HOME", home)
	env.Setenv("TMPDIR", tmp)
	env.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(conf, "storage.conf"))
	env.Setenv("CONTAINERS_CONF", filepath.Join(conf, "containers.conf"))
	env.Setenv("LANG", "C.UTF-8")
	env.Setenv("STORE", store)
	env.Setenv("REGISTRY", registry)
	env.Setenv("REGISTRY_AUTH", locked)
	env.Setenv("GOARCH", runtime.GOARCH)
	env.Setenv("FOREIGN", map[bool]string{true: "amd64", false: "arm64"}[runtime.GOARCH == "arm64"])
	env.Setenv("EXAMPLES", need(t, "SHALE_EXAMPLES"))
	env.Setenv("CONTAINER", filepath.Join(filepath.Dir(need(t, "SHALE_BIN")), "container"))
	env.Setenv("RECIPES", filepath.Join(need(t, "SHALE_EXAMPLES"), "..", "ci"))
	// Sources of packages for programs that run inside builds, and the duration of the
	// scenarios of make soak.
	for _, name := range []string{"GOPROXY", "GOSUMDB", "GOROOT", "NPM_CONFIG_REGISTRY", "CA_FILE", "POINTS", "KILLS"} {
		if value := os.Getenv("SHALE_" + name); value != "" {
			env.Setenv(name, value)
		}
	}
	env.Setenv("DEBIAN", "--build-context=debian:bookworm-slim=docker-image://base.test/debian")
	env.Setenv("BUSYBOX", "--build-context=busybox=docker-image://base.test/busybox")
	return nil
}

// registriesConf configures the registries without TLS. The first gets a name that
// Dockerfiles can contain, because its port differs in each run.
func registriesConf(registry, locked string) string {
	conf := fmt.Sprintf("[[registry]]\nprefix = \"base.test\"\nlocation = %q\ninsecure = true\n", registry)
	for _, location := range []string{registry, locked} {
		conf += fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", location)
	}
	return conf
}

// cleanUp removes the files of a scenario. Many of them belong to subordinate ids.
// testscript removes the working directory afterwards.
func cleanUp(t *testing.T, env *testscript.Env) {
	runtimeDir := env.Getenv("XDG_RUNTIME_DIR")
	// Rootless podman leaves a process that holds its user namespace.
	if data, err := os.ReadFile(filepath.Join(runtimeDir, "libpod", "tmp", "pause.pid")); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	remove := []string{"rm", "-rf", env.Getenv("SCENARIO"), runtimeDir}
	if os.Geteuid() != 0 {
		mapped := []string{"unshare", "--map-root-user", "--map-auto"}
		if exec.Command(mapped[0], append(mapped[1:], "true")...).Run() != nil {
			mapped = mapped[:2] // the user has no subordinate ids
		}
		remove = append(mapped, remove...)
	} else {
		// podman bind-mounts the driver's directory on itself.
		_ = exec.Command("umount", "-R", "-l", filepath.Join(env.Getenv("STORE"), "overlay")).Run()
	}
	if out, err := exec.Command(remove[0], remove[1:]...).CombinedOutput(); err != nil {
		t.Errorf("remove what the scenario left: %v: %s", err, out)
	}
}
