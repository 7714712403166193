package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine describes where and when the times were measured.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	MiB    uint64 `json:"memory_mib"`
	Kernel string `json:"kernel"`
	OS     string `json:"os"`
	Date   string `json:"date"`
	UID    int    `json:"uid"`
}

func describeMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Date: time.Now().UTC().Format(time.DateOnly), UID: os.Getuid()}
	m.CPU = field("/proc/cpuinfo", "model name", ":")
	m.OS = strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MiB = info.Totalram * uint64(info.Unit) >> 20
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = string(bytes.TrimRight(name.Release[:], "\x00"))
	}
	return m
}

// field returns the value of the first line of a file that has this key.
func field(file, key, separator string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		name, value, found := strings.Cut(line, separator)
		if found && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, %d MiB, %s, Linux %s, %s, uid %d", m.CPU, m.Cores, m.MiB, m.OS, m.Kernel, m.Date, m.UID)
}
