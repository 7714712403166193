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

// UnusedArg is a build argument that no ARG declares.
type UnusedArg struct {
	Name string
	// Nearest is a declared name that it may be a misspelling of, "" for
	// none.
	Nearest string
}

// predefined are the build arguments that mean something without an ARG, in
// capitals. Those that begin with BUILDKIT_ do as well.
var predefined = map[string]bool{
	"HTTP_PROXY": true, "HTTPS_PROXY": true, "FTP_PROXY": true, "NO_PROXY": true, "ALL_PROXY": true,
	"TARGETPLATFORM": true, "TARGETOS": true, "TARGETARCH": true, "TARGETVARIANT": true, "TARGETOSVERSION": true,
	"BUILDPLATFORM": true, "BUILDOS": true, "BUILDARCH": true, "BUILDVARIANT": true, "BUILDOSVERSION": true,
	"TARGETSTAGE": true, epochArg: true,
}

// declared collects the names that ARG instructions declare, in the Dockerfile
// and in the triggers of base images. It is asked by several goroutines.
type declared struct {
	mu         sync.Mutex
	dockerfile []byte
	triggers   []string
}

// read keeps the Dockerfile.
func (d *declared) read(dockerfile []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dockerfile = bytes.Clone(dockerfile)
}

// file is the Dockerfile, nil before it was read.
func (d *declared) file() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dockerfile
}

// resolved keeps the triggers of an image.
func (d *declared) resolved(config []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.triggers = append(d.triggers, triggersOf(config)...)
}

// unused tells which of args nobody declares. Without a Dockerfile at hand it
// says nothing.
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

// nearest is the candidate that name is a misspelling of, in the case of its
// letters first of all.
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
