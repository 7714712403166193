package frontend

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/suggest"
)

// UnusedArg is a build argument that no ARG instruction declares.
type UnusedArg struct {
	Name string
	// Nearest is a declared name of which Name may be a misspelling, "" if there is none.
	Nearest string
}

// predefined are the build arguments that have an effect without an ARG instruction, in
// capitals. Build arguments that begin with BUILDKIT_ have an effect as well.
var predefined = map[string]bool{
	"HTTP_PROXY": true, "HTTPS_PROXY": true, "FTP_PROXY": true, "NO_PROXY": true, "ALL_PROXY": true,
	"TARGETPLATFORM": true, "TARGETOS": true, "TARGETARCH": true, "TARGETVARIANT": true, "TARGETOSVERSION": true,
	"BUILDPLATFORM": true, "BUILDOS": true, "BUILDARCH": true, "BUILDVARIANT": true, "BUILDOSVERSION": true,
	"TARGETSTAGE": true, epochArg: true,
}

// declared collects the names that ARG instructions declare, in the Dockerfile and in the
// triggers of base images. It is safe for concurrent use.
type declared struct {
	mu         sync.Mutex
	dockerfile []byte
	triggers   []string
}

// read stores the Dockerfile.
func (d *declared) read(dockerfile []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dockerfile = bytes.Clone(dockerfile)
}

// file returns the Dockerfile, or nil if it was not read yet.
func (d *declared) file() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dockerfile
}

// resolved stores the triggers of a base image.
func (d *declared) resolved(config []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.triggers = append(d.triggers, triggersOf(config)...)
}

// unused returns the args that no ARG instruction declares. It returns nil if the
// Dockerfile was not read or does not parse.
func (d *declared) unused(args map[string]string) []UnusedArg {
	names, ok := d.names()
	if !ok {
		return nil
	}
	var unused []UnusedArg
	for _, name := range slices.Sorted(maps.Keys(args)) {
		upper := strings.ToUpper(name)
		if names[name] || predefined[upper] || strings.HasPrefix(upper, "BUILDKIT_") {
			continue
		}
		unused = append(unused, UnusedArg{Name: name, Nearest: nearest(name, slices.Sorted(maps.Keys(names)))})
	}
	return unused
}

// nearest returns the candidate of which name is probably a misspelling, or "" if there
// is none. A candidate that differs only in upper and lower case comes first.
func nearest(name string, candidates []string) string {
	for _, c := range candidates {
		if strings.EqualFold(name, c) {
			return c
		}
	}
	near, _ := suggest.Search(name, candidates, true)
	return near
}

func (d *declared) names() (map[string]bool, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dockerfile == nil {
		return nil, false
	}
	stages, global, err := parse(d.dockerfile)
	if err != nil {
		return nil, false
	}
	names := map[string]bool{}
	for i := range global {
		addArgs(names, &global[i])
	}
	for _, stage := range stages {
		for _, c := range stage.Commands {
			switch c := c.(type) {
			case *instructions.ArgCommand:
				addArgs(names, c)
			case *instructions.OnbuildCommand:
				addTrigger(names, c.Expression)
			}
		}
	}
	for _, trigger := range d.triggers {
		addTrigger(names, trigger)
	}
	return names, true
}

func addArgs(names map[string]bool, c *instructions.ArgCommand) {
	for _, arg := range c.Args {
		names[arg.Key] = true
	}
}

func addTrigger(names map[string]bool, trigger string) {
	stages, global, err := parse([]byte("FROM scratch\n" + trigger))
	if err != nil || len(stages) != 1 || len(global) != 0 {
		return
	}
	for _, c := range stages[0].Commands {
		if arg, ok := c.(*instructions.ArgCommand); ok {
			addArgs(names, arg)
		}
	}
}
