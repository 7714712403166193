package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/userns"
)

// envChild is set in the environment of the probes' child process. The child enters the
// namespaces as a build would and reports the results on its standard output.
const envChild = "_SHALE_PROBE"

func isRoot() bool { return os.Geteuid() == 0 }

// Main must be called at the start of main. In the probes' child process it does not
// return.
func Main() {
	if os.Getenv(envChild) == "" {
		return
	}
	info, err := userns.Enter(context.Background(), userns.Options{})
	if err != nil {
		why, fix := err.Error(), ""
		if e, ok := errors.AsType[*userns.Error](err); ok {
			why, fix = e.Step+": "+e.Err.Error(), e.Fix
		}
		fmt.Fprintf(os.Stdout, "error\t%s\t%s\t%s\n", oneLine(why), fix, userns.AppArmorRefuses(err))
		os.Exit(0) //nolint:forbidigo // a child of our own, which has no main
	}
	fmt.Fprintf(os.Stdout, "mode\t%s\t%d\t%s\n", info.Mode, info.UIDs, oneLine(info.Reason))
	if err := recorded.ProbeSystem(); info.SingleID() && err != nil {
		fmt.Fprintf(os.Stdout, "recorded\t%s\n", oneLine(err.Error()))
	}
	if err := tryProc(); err != nil {
		fmt.Fprintf(os.Stdout, "proc\t%s\n", oneLine(err.Error()))
	}
	// This must be last, because no file can be opened by path after it.
	if err := tryRoot(); err != nil {
		fmt.Fprintf(os.Stdout, "pivot\t%s\n", oneLine(err.Error()))
	}
	os.Exit(0) //nolint:forbidigo // a child of our own, which has no main
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// tryProc mounts a new /proc in a new pid namespace.
func tryProc() error {
	out, err := procCommand(context.Background()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// tryRoot makes a tmpfs the root of the mount namespace, which ends with the process.
func tryRoot() error {
	const dir = "/proc" // exists everywhere; TMPDIR may not
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return nil
}

func namespaces(ctx context.Context) []Result {
	ctx, cancel := context.WithTimeoutCause(ctx, childTimeout, fmt.Errorf("no answer within %s", childTimeout))
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe") // #nosec G204 -- this program
	cmd.Env = append(os.Environ(), envChild+"=1")
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		out = []byte("error\t" + oneLine(err.Error()))
	}
	subIDsFix := ""
	if !isRoot() {
		subIDsFix = userns.SubIDsFix(ctx)
	}
	return readChild(string(out), unsupportedFix, subIDsFix)
}

// childTimeout is much longer than the child takes on an emulated machine under load.
const childTimeout = 2 * time.Minute

const unsupportedFix = "allow unshare(2) and mount(2)"

// readChild converts the child's report to results. fix is the fix for a missing user
// namespace if the report names none.
func readChild(out, fix, subIDsFix string) []Result {
	lines := map[string][]string{}
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		lines[f[0]] = f[1:]
	}
	mode := lines["mode"]
	if len(mode) != 3 {
		why := "the probe reported nothing"
		if e := lines["error"]; len(e) > 0 {
			why = e[0]
			if len(e) > 1 && e[1] != "" {
				fix = e[1]
			}
		}
		refusal := ""
		if e := lines["error"]; len(e) > 2 {
			refusal = e[2]
		}
		if refusal != "" {
			fix = "" // the result of AppArmor has the fix
		}
		const after = "cannot be tried without a user namespace"
		return []Result{
			{UserNS, Missing, why, fix},
			appArmor(refusal),
			{IDMap, Missing, after, ""},
			{FreshProc, Missing, after, ""},
			{PivotRoot, Missing, after, ""},
		}
	}
	ids := Result{Name: IDMap, Status: OK, Detail: mode[0] + ", " + mode[1] + " ids"}
	if mode[0] == string(userns.ModeSingle) || mode[1] == "1" {
		ids.Status, ids.Detail = Degraded, mode[2]
		ids.Fix = subIDsFix
	}
	results := []Result{
		{Name: UserNS, Status: OK, Detail: mode[0]},
		appArmor(""),
		ids,
	}
	if ids.Status == Degraded {
		// The error contains the fix.
		results = append(results, failed(Ownership, lines["recorded"], Missing, ""))
	}
	return append(results,
		failed(FreshProc, lines["proc"], Degraded, "run the container with an unmasked /proc (--security-opt systempaths=unconfined)"),
		failed(PivotRoot, lines["pivot"], Missing, "not on an initial ramdisk, and with mount(2) allowed"),
	)
}

func failed(name string, why []string, status Status, fix string) Result {
	if len(why) == 0 {
		return Result{Name: name, Status: OK}
	}
	return Result{Name: name, Status: status, Detail: why[0], Fix: fix}
}
