package frontend

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HasRegistry reports whether a name begins with a host, by docker's rule: the part
// before the first slash has a dot, a colon or an upper-case letter, or is localhost.
func HasRegistry(name string) bool {
	host, _, found := strings.Cut(name, "/")
	return found && (strings.ContainsAny(host, ".:") || host == "localhost" || strings.ToLower(host) != host)
}

// spellings records how a build spells the names of its images. The front end asks for
// docker.io/library/busybox:latest in two cases: if the Dockerfile has busybox, and if it
// has the complete name. Only the first may refer to an image that was built here.
// spellings is safe for concurrent use.
type spellings struct {
	in *Inputs

	mu sync.Mutex
	// stages are the names of all stages. They are not images.
	stages map[string]bool
	// bare and full are sets of complete names: bare of those that are spelled without a
	// registry, full of those that are spelled with one.
	bare, full map[string]bool
	// marked maps names that read put into the Dockerfile to the original complete names.
	marked map[string]string
}

func newSpellings(in *Inputs) *spellings {
	return &spellings{in: in, stages: map[string]bool{}, bare: map[string]bool{}, full: map[string]bool{}, marked: map[string]string{}}
}

// use is one use of an image in an instruction.
type use struct {
	// name is the image as it is spelled, with variables replaced.
	name string
	// token is the name in the Dockerfile, possibly with variables. before is an
	// expression for the text before it. If token is empty, it cannot be replaced.
	before, token string
	lines         []parser.Range
}

// Regular expressions for the text around the name of an image.
const (
	beforeFrom  = `(\s)`
	beforeCopy  = `(\s--from=["']?)`
	beforeMount = `(\s--mount=(?:\S*,)?["']?(?i:from)=)`
	afterName   = `([\s,"']|$)`
)

// read collects the names in a Dockerfile and returns the Dockerfile for the front end.
// If the Dockerfile spells one name with and without a registry, read adds an artificial
// registry to the spelling without one. spelled and original recognize the artificial
// name. Otherwise read returns the Dockerfile unchanged.
func (s *spellings) read(dockerfile []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	uses, ok := s.uses(dockerfile)
	if !ok {
		return dockerfile // the front end reports the error
	}
	s.collect(uses)
	marked := map[string]string{}
	changed := dockerfile
	for _, u := range uses {
		name, ok := completeName(u.name)
		if ok && s.bare[name] && s.full[name] && !HasRegistry(u.name) && !s.isContext(name) {
			mark := s.mark(name)
			marked[mark] = name
			changed = u.replace(changed, mark)
		}
	}
	if len(marked) == 0 {
		return dockerfile
	}
	again, ok := s.uses(changed)
	if !ok || len(again) != len(uses) {
		return dockerfile
	}
	clear(s.bare)
	clear(s.full)
	maps.Copy(s.marked, marked)
	s.collect(again)
	return changed
}

// mark returns an artificial name for a complete name that is spelled without a registry.
// The Dockerfile does not contain the artificial name.
func (s *spellings) mark(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	familiar := reference.FamiliarString(named)
	mark := "localhost/" + familiar
	if s.full[mark] {
		mark = "localhost:0/" + familiar
	}
	return mark
}

func (s *spellings) collect(uses []use) {
	for _, u := range uses {
		name, ok := completeName(u.name)
		switch {
		case !ok || s.marked[name] != "":
		case HasRegistry(u.name):
			s.full[name] = true
		default:
			s.bare[name] = true
		}
	}
}

// resolved collects the names in the triggers of a base image. It returns the complete
// names that the build now spells in both ways. The caller must compare their images,
// because the front end may have asked for them already and does not ask twice.
func (s *spellings) resolved(config []byte) []string {
	triggers := triggersOf(config)
	if len(triggers) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var both []string
	for _, trigger := range triggers {
		uses := s.triggerUses(trigger)
		s.collect(uses)
		for _, u := range uses {
			if name, ok := completeName(u.name); ok && s.bare[name] && s.full[name] && !s.isContext(name) {
				both = append(both, name)
			}
		}
	}
	return both
}

// spelled returns how the build spells the complete name ref that the front end asks for.
// It returns both spellings if they cannot be distinguished.
func (s *spellings) spelled(ref, logName string) []string {
	if strings.HasPrefix(logName, "[context ") {
		// For a named context, the log name contains the name as the user spelled it.
		_, given, _ := strings.Cut(logName, " load metadata for ")
		if name, ok := completeName(given); ok && name == ref && !HasRegistry(given) {
			return []string{familiarName(ref)}
		}
		return []string{ref}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bare := s.bare[ref]
	if name := s.marked[ref]; name != "" {
		ref, bare = name, true
	} else if bare && s.full[ref] && !s.isContext(ref) {
		return []string{familiarName(ref), ref}
	}
	if bare {
		return []string{familiarName(ref)}
	}
	return []string{ref}
}

// original returns the complete name that ref stands for. That is ref itself if ref is
// not an artificial name.
func (s *spellings) original(ref string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name := s.marked[ref]; name != "" {
		return name
	}
	return ref
}

// isContext reports whether a named context replaces an image. It then replaces both
// spellings.
func (s *spellings) isContext(name string) bool {
	key := "context:" + strings.TrimSuffix(familiarName(name), ":latest")
	for k := range s.in.opts {
		if k == key || strings.HasPrefix(k, key+"::") {
			return true
		}
	}
	return false
}

func completeName(name string) (string, bool) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", false
	}
	return reference.TagNameOnly(named).String(), true
}

func familiarName(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

// uses returns the images that a Dockerfile names, without stages. FROM can refer to
// earlier stages, and --from to all stages. If the Dockerfile does not parse, ok is
// false.
func (s *spellings) uses(dockerfile []byte) (uses []use, ok bool) {
	ast, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, false
	}
	stages, args, err := instructions.Parse(ast.AST, linter.New(&linter.Config{}))
	if err != nil || len(stages) == 0 {
		return nil, false
	}
	environments := s.environments(stages, args, shell.NewLex(ast.EscapeToken))
	clear(s.stages)
	for _, stage := range stages {
		uses = append(uses, s.baseUses(stage, environments, shell.NewLex(ast.EscapeToken))...)
		if stage.Name != "" {
			s.stages[stage.Name] = true
		}
	}
	for _, stage := range stages {
		for _, c := range stage.Commands {
			uses = append(uses, s.commandUses(c)...)
		}
	}
	return uses, true
}

// baseUses returns the bases of a stage. There are several if they differ between
// platforms.
func (s *spellings) baseUses(stage instructions.Stage, environments []shell.EnvGetter, lex *shell.Lex) []use {
	var names []string
	for _, env := range environments {
		name, _, err := lex.ProcessWord(stage.BaseName, env)
		if err == nil && name != "" && name != "scratch" && !s.stages[name] && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var uses []use
	for _, name := range names {
		u := use{name: name, lines: stage.Location}
		if len(names) == 1 {
			u.before, u.token = beforeFrom, stage.BaseName
		}
		uses = append(uses, u)
	}
	return uses
}

func (s *spellings) commandUses(c instructions.Command) []use {
	var uses []use
	add := func(from, before string) {
		if from == "" || from == "scratch" || s.stages[strings.ToLower(from)] {
			return
		}
		uses = append(uses, use{name: from, before: before, token: from, lines: c.Location()})
	}
	switch c := c.(type) {
	case *instructions.CopyCommand:
		if _, err := strconv.Atoi(c.From); err != nil {
			add(c.From, beforeCopy)
		}
	case *instructions.RunCommand:
		for _, m := range instructions.GetMounts(c) {
			add(m.From, beforeMount)
		}
	case *instructions.OnbuildCommand:
		// A trigger becomes part of the image, so it must not be changed.
		uses = s.triggerUses(c.Expression)
	}
	return uses
}

func (s *spellings) triggerUses(trigger string) []use {
	stages, global, err := parse([]byte("FROM scratch\n" + trigger))
	if err != nil || len(stages) != 1 || len(global) != 0 {
		return nil
	}
	var uses []use
	for _, c := range stages[0].Commands {
		if _, nested := c.(*instructions.OnbuildCommand); nested {
			continue
		}
		for _, u := range s.commandUses(c) {
			uses = append(uses, use{name: u.name})
		}
	}
	return uses
}

// replace returns dockerfile with another name instead of the name of u, in the lines of
// its instruction.
func (u use) replace(dockerfile []byte, name string) []byte {
	if u.token == "" || len(u.lines) == 0 {
		return dockerfile
	}
	lines := bytes.SplitAfter(dockerfile, []byte("\n"))
	first, last := u.lines[0].Start.Line, u.lines[len(u.lines)-1].End.Line
	if first < 1 || last < first || last > len(lines) {
		return dockerfile
	}
	text := bytes.Join(lines[first-1:last], nil)
	at := regexp.MustCompile(u.before + regexp.QuoteMeta(u.token) + afterName).FindSubmatchIndex(text)
	if at == nil {
		return dockerfile
	}
	return slices.Concat(bytes.Join(lines[:first-1], nil), text[:at[3]], []byte(name), text[at[4]:], bytes.Join(lines[last:], nil))
}

// environments returns the variables that FROM may use, one set for each target platform.
// They are the predefined arguments and those declared before the first FROM, with the
// values that the front end computes.
func (s *spellings) environments(stages []instructions.Stage, args []instructions.ArgCommand, lex *shell.Lex) []shell.EnvGetter {
	target := s.in.opts["target"]
	if target == "" {
		target = stages[len(stages)-1].Name
	}
	if target == "" {
		target = "default"
	}
	var list []shell.EnvGetter
	for _, platform := range s.targets() {
		env := s.predefined(platform, target)
		for _, c := range args {
			for _, arg := range c.Args {
				if v, ok := s.in.buildArgs[arg.Key]; ok {
					env = append(env, arg.Key+"="+v)
				} else if arg.Value != nil {
					// The front end reports the same error.
					v, _, _ := lex.ProcessWord(*arg.Value, shell.EnvsFromSlice(env))
					env = append(env, arg.Key+"="+v)
				}
			}
		}
		list = append(list, shell.EnvsFromSlice(env))
	}
	return list
}

func (s *spellings) targets() []ocispec.Platform {
	var list []ocispec.Platform
	for p := range strings.SplitSeq(s.in.opts["platform"], ",") {
		if parsed, err := platforms.Parse(p); err == nil {
			list = append(list, platforms.Normalize(parsed))
		}
	}
	if len(list) == 0 {
		list = append(list, s.in.platform)
	}
	return list
}

// predefined returns the arguments that are defined in FROM without an ARG instruction.
func (s *spellings) predefined(target ocispec.Platform, stage string) []string {
	build := s.in.platform
	env := []string{
		"BUILDPLATFORM=" + platforms.Format(build), "BUILDOS=" + build.OS, "BUILDOSVERSION=" + build.OSVersion,
		"BUILDARCH=" + build.Architecture, "BUILDVARIANT=" + build.Variant,
		"TARGETPLATFORM=" + platforms.FormatAll(target), "TARGETOS=" + target.OS, "TARGETOSVERSION=" + target.OSVersion,
		"TARGETARCH=" + target.Architecture, "TARGETVARIANT=" + target.Variant, "TARGETSTAGE=" + stage,
	}
	for i, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		if v, ok := s.in.buildArgs[key]; ok {
			env[i] = key + "=" + v
		}
	}
	return env
}
