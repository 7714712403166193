package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage"
)

const (
	gcName = "gc"
	gcEnv  = "SHALE_GC"
)

func gcFlag() cli.Flag {
	return &cli.StringFlag{
		Name: gcName, Value: "on", EnvVars: []string{gcEnv},
		Usage: "bound the build cache after a build that adds to it: on, off or `KEY=VALUE,…` with KEY keep-duration, reserved-space, max-used-space or min-free-space, sizes also as 10%",
	}
}

// parseGC parses the value of --gc. It returns nil for off. Limits that the value does
// not name are those of gc.Default.
func parseGC(value string) (*gc.Limits, error) {
	limits := gc.Default()
	switch value {
	case "", "on", "true", "1":
		return &limits, nil
	case "off", "false", "0":
		return nil, nil //nolint:nilnil // no limits are no error
	}
	for field := range strings.SplitSeq(value, ",") {
		key, v, _ := strings.Cut(field, "=")
		var err error
		switch key {
		case "keep-duration":
			limits.KeepDuration, err = time.ParseDuration(v)
		case "reserved-space":
			limits.Reserved, err = parseAmount(v)
		case "max-used-space":
			limits.MaxUsed, err = parseAmount(v)
		case "min-free-space":
			limits.MinFree, err = parseAmount(v)
		default:
			err = fmt.Errorf("%q is not keep-duration, reserved-space, max-used-space or min-free-space", key)
		}
		if err != nil {
			return nil, fmt.Errorf("invalid --%s %q: %w", gcName, value, err)
		}
	}
	return &limits, nil
}

// parseAmount parses a size, or a percentage of the disk.
func parseAmount(value string) (gc.Amount, error) {
	if share, ok := strings.CutSuffix(value, "%"); ok {
		percent, err := strconv.Atoi(share)
		if err != nil || percent < 0 || percent > 100 {
			return gc.Amount{}, fmt.Errorf("%q is not a percentage", value)
		}
		return gc.Amount{Percent: percent}, nil
	}
	bytes, err := parseSize(gcName, value)
	return gc.Amount{Bytes: bytes}, err
}

// gcResult returns doctor's row about the limits of the cache in a store. The only
// problem that it finds is an invalid setting. If the disk is full, the trial build
// fails.
func gcResult(graphRoot, setting string) probe.Result {
	r := probe.Result{Name: "build cache", Status: probe.OK}
	limits, err := parseGC(setting)
	if err != nil {
		r.Status, r.Detail, r.Fix = probe.Degraded, err.Error(), "unset "+gcEnv+", or set it to on or off"
		return r
	}
	if limits == nil {
		r.Detail = "not bounded: " + gcEnv + "=off"
		return r
	}
	sp, err := storage.SpaceOf(graphRoot)
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	r.Detail = describe(limits.On(sp.Size)) + " (" + gcEnv + ", build --" + gcName + ")"
	return r
}

func describe(p gc.Policy) string {
	var parts []string
	if p.MaxUsed > 0 {
		parts = append(parts, "at most "+humanSize(p.MaxUsed))
	}
	if p.MinFree > 0 {
		parts = append(parts, humanSize(p.MinFree)+" of the disk stay free")
	}
	if p.KeepDuration > 0 {
		parts = append(parts, "what is not used for "+days(p.KeepDuration)+" goes")
	}
	if p.Reserved > 0 {
		parts = append(parts, humanSize(p.Reserved)+" may always stay")
	}
	if len(parts) == 0 {
		return "not bounded"
	}
	return strings.Join(parts, ", ")
}

func days(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n > 1 {
		return plural(n, "day")
	}
	return d.String()
}
