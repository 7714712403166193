package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/frontend"
)

// resourceFlags are the flags that limit the resources of steps, with the names that
// docker build uses.
var resourceFlags = []string{"cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems", "memory", "memory-swap"}

// parseResources parses --resource KEY=VALUE, a flag of buildx, and the flags that have
// the names of the keys. The latter take precedence.
func parseResources(c *cli.Context) (frontend.Resources, error) {
	r := frontend.Resources{CgroupParent: c.String("cgroup-parent")}
	for _, entry := range c.StringSlice("resource") {
		key, value, ok := strings.Cut(entry, "=")
		if !ok {
			return r, fmt.Errorf("invalid --resource %q: want KEY=VALUE", entry)
		}
		if err := setResource(&r, strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return r, fmt.Errorf("invalid --resource %q: %w", entry, err)
		}
	}
	for _, name := range resourceFlags {
		if value := c.String(name); value != "" {
			if err := setResource(&r, name, value); err != nil {
				return r, fmt.Errorf("invalid --%s %q: %w", name, value, err)
			}
		}
	}
	return r, nil
}

func setResource(r *frontend.Resources, key, value string) (err error) {
	switch key {
	case "memory":
		r.Memory, err = units.RAMInBytes(value)
	case "memory-swap":
		if value == "-1" {
			r.MemorySwap = -1
			return nil
		}
		r.MemorySwap, err = units.RAMInBytes(value)
	case "cpu-shares":
		r.CPUShares, err = positive(value)
	case "cpu-period":
		r.CPUPeriod, err = positive(value)
	case "cpu-quota":
		r.CPUQuota, err = positive(value)
	case "cpuset-cpus":
		r.CpusetCpus = value
	case "cpuset-mems":
		r.CpusetMems = value
	default:
		return fmt.Errorf("unknown resource %q", key)
	}
	return err
}

func positive(value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("want a number")
	}
	return n, nil
}
