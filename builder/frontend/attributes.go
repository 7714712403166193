package frontend

import (
	"bytes"
	"encoding/csv"
	"net"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"
)

// epochArg is the build argument that fixes timestamps.
const epochArg = "SOURCE_DATE_EPOCH"

// attributes returns o as the options of BuildKit's front end.
func attributes(o Options) (map[string]string, error) {
	m := map[string]string{}
	if o.Epoch != nil {
		m["build-arg:"+epochArg] = strconv.FormatInt(o.Epoch.Unix(), 10)
	}
	for k, v := range o.BuildArgs {
		m["build-arg:"+k] = v
	}
	if v, ok := o.BuildArgs["BUILDKIT_SYNTAX"]; ok && strings.TrimSpace(v) == "" {
		return nil, inputErrorf("empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior")
	}
	for k, v := range o.Labels {
		m["label:"+k] = v
	}
	set := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	set("target", o.Target)
	set("platform", platformList(o))
	if o.Pull {
		set("image-resolve-mode", pb.AttrImageResolveModeForcePull)
	}
	if err := setCache(m, o); err != nil {
		return nil, err
	}
	if err := setSandbox(m, o); err != nil {
		return nil, err
	}
	if o.Call != "" {
		m["requestid"] = requestID(o.Call)
	}
	return m, nil
}

// requestID returns the front end's name of a report.
func requestID(call string) string {
	if call == CallCheck {
		return "frontend.lint"
	}
	return "frontend." + call
}

func platformList(o Options) string {
	var list []string
	for _, p := range o.Platforms {
		list = append(list, platforms.FormatAll(platforms.Normalize(p)))
	}
	return strings.Join(list, ",")
}

// setCache sets the option "no-cache". If it is present and empty, it applies to every
// stage.
func setCache(m map[string]string, o Options) error {
	if o.NoCache && len(o.NoCacheFilter) > 0 {
		return inputErrorf("--no-cache and --no-cache-filter cannot currently be used together")
	}
	if o.NoCache {
		m["no-cache"] = ""
		return nil
	}
	for _, stage := range o.NoCacheFilter {
		if stage == "" || strings.Contains(stage, ",") {
			return inputErrorf("%q cannot be the name of a stage whose cache is ignored", stage)
		}
	}
	if len(o.NoCacheFilter) > 0 {
		m["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	return nil
}

func setSandbox(m map[string]string, o Options) error {
	switch o.Network {
	case "", "default", "private":
	case "none", "host":
		m["force-network-mode"] = o.Network
	default:
		return inputErrorf("network %q is unknown: use default, none, host or private", o.Network)
	}
	if o.ShmSize < 0 {
		return inputErrorf("the size of /dev/shm cannot be %d", o.ShmSize)
	}
	if o.ShmSize > 0 {
		m["shm-size"] = strconv.FormatInt(o.ShmSize, 10)
	}
	setResources(m, o.Resources)
	hosts, err := hostList(o.AddHosts)
	if err != nil {
		return err
	}
	if hosts != "" {
		m["add-hosts"] = hosts
	}
	for _, u := range o.Ulimits {
		if _, err := units.ParseUlimit(u); err != nil {
			return inputErrorf("ulimit %q: %w", u, err)
		}
	}
	ulimits, err := csvLine(o.Ulimits)
	if err != nil {
		return err
	}
	if ulimits != "" {
		m["ulimit"] = ulimits
	}
	return nil
}

// setResources sets the limits that are not zero. The front end checks their values.
func setResources(m map[string]string, r Resources) {
	for key, n := range map[string]int64{
		"memory": r.Memory, "memswap": r.MemorySwap, "cpushares": r.CPUShares, "cpuperiod": r.CPUPeriod, "cpuquota": r.CPUQuota,
	} {
		if n != 0 {
			m[key] = strconv.FormatInt(n, 10)
		}
	}
	for key, text := range map[string]string{"cpusetcpus": r.CpusetCpus, "cpusetmems": r.CpusetMems, "cgroup-parent": r.CgroupParent} {
		if text != "" {
			m[key] = text
		}
	}
}

// hostList parses entries of the form NAME:IP or NAME=IP. An IPv6 address may be in
// brackets.
func hostList(hosts []string) (string, error) {
	var list []string
	for _, h := range hosts {
		name, ip, ok := strings.Cut(h, "=")
		if !ok {
			name, ip, ok = strings.Cut(h, ":")
		}
		if strings.HasPrefix(ip, "[") && strings.HasSuffix(ip, "]") {
			ip = ip[1 : len(ip)-1]
		}
		if !ok || name == "" || net.ParseIP(ip) == nil {
			return "", inputErrorf("host %q is not NAME:IP", h)
		}
		list = append(list, name+"="+ip)
	}
	return csvLine(list)
}

func csvLine(fields []string) (string, error) {
	if len(fields) == 0 {
		return "", nil
	}
	var buf bytes.Buffer
	w := csv.NewWriter(&buf)
	if err := w.Write(fields); err != nil {
		return "", inputErrorf("encode %q: %w", fields, err)
	}
	w.Flush()
	return strings.TrimSuffix(buf.String(), "\n"), w.Error()
}
