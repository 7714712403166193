package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
)

// Version is the version of shale. Releases set it with -ldflags -X.
var Version = "0.1.0-dev"

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "Print the version",
		Flags: []cli.Flag{formatFlag("print with `FORMAT`: json or a Go template")},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return printVersion(c)
		},
	}
}

// versionDetails holds the values that version prints.
type versionDetails struct {
	Version   string
	GitCommit string
	BuildTime string
	GoVersion string
	Os        string
	Arch      string
}

func readVersion() versionDetails {
	v := versionDetails{Version: Version, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitCommit = s.Value
		case "vcs.time":
			v.BuildTime = s.Value
		}
	}
	return v
}

func shortCommit() string {
	if commit := readVersion().GitCommit; commit != "" {
		return commit[:min(7, len(commit))]
	}
	return "unknown"
}

const versionText = `Version:     {{.Version}}
Git commit:  {{if .GitCommit}}{{.GitCommit}}{{else}}unknown{{end}}
Built:       {{if .BuildTime}}{{.BuildTime}}{{else}}unknown{{end}}
Go version:  {{.GoVersion}}
OS/Arch:     {{.Os}}/{{.Arch}}`

func printVersion(c *cli.Context) error {
	return writeValue(c, c.String("format"), versionText, readVersion())
}

// writeValue writes a value as JSON if chosen is "json". Otherwise, chosen is a
// template. If it is "", writeValue uses the template text.
func writeValue(c *cli.Context, chosen, text string, value any) error {
	switch chosen {
	case "":
		chosen = text
	case "json":
		line, err := format.JSON(value)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, line)
		return err
	}
	t, err := format.Parse(chosen)
	if err != nil {
		return usageError(c, err.Error())
	}
	return format.Execute(c.App.Writer, t, value)
}
