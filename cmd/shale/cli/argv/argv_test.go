package argv

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func testApp() *cli.App {
	app := &cli.App{
		Name: "shale",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "root"},
			&cli.BoolFlag{Name: "debug", Aliases: []string{"D"}},
		},
		Commands: []*cli.Command{
			{Name: "build", HideHelpCommand: true, Flags: []cli.Flag{
				&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}},
				&cli.StringFlag{Name: "file", Aliases: []string{"f"}},
				&cli.BoolFlag{Name: "no-cache"},
				&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}},
				&cli.StringFlag{Name: "secret-handshake", Hidden: true},
			}},
			{Name: "run", HideHelpCommand: true, Flags: []cli.Flag{
				&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}},
				&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}},
				&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}},
			}},
			{Name: "image", Subcommands: []*cli.Command{
				{Name: "ls", Aliases: []string{"list"}, HideHelpCommand: true, Flags: []cli.Flag{
					&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}},
				}},
			}},
		},
	}
	app.Setup()
	return app
}

func TestNormalize(t *testing.T) {
	tests := map[string]struct {
		args, want []string
	}{
		"flags first":            {[]string{"build", "-t", "x", "."}, []string{"build", "--tag=x", "--", "."}},
		"flags last":             {[]string{"build", ".", "-t", "x"}, []string{"build", "--tag=x", "--", "."}},
		"two spellings":          {[]string{"build", "-t", "a", "--tag", "b", "--tag=c", "."}, []string{"build", "--tag=a", "--tag=b", "--tag=c", "--", "."}},
		"glued value":            {[]string{"build", "-tx", "-f=D", "."}, []string{"build", "--tag=x", "--file=D", "--", "."}},
		"cluster with value":     {[]string{"build", "-qtx", "."}, []string{"build", "--quiet", "--tag=x", "--", "."}},
		"cluster, value follows": {[]string{"build", "-qt", "x", "."}, []string{"build", "--quiet", "--tag=x", "--", "."}},
		"stdin context":          {[]string{"build", "-f", "-", "-"}, []string{"build", "--file=-", "--", "-"}},
		"value like a flag":      {[]string{"build", "--tag", "--no-cache", "."}, []string{"build", "--tag=--no-cache", "--", "."}},
		"value with =":           {[]string{"build", "--file=a=b", "."}, []string{"build", "--file=a=b", "--", "."}},
		"empty value":            {[]string{"build", "--file=", "."}, []string{"build", "--file=", "--", "."}},
		"bool with value":        {[]string{"build", "--no-cache=false", "-q=true", "."}, []string{"build", "--no-cache=false", "--quiet=true", "--", "."}},
		"double dash":            {[]string{"build", "-q", "--", "-t", "--"}, []string{"build", "--quiet", "--", "-t", "--"}},
		"context named help":     {[]string{"build", "help"}, []string{"build", "--", "help"}},
		"context named build":    {[]string{"build", "build"}, []string{"build", "--", "build"}},
		"global before":          {[]string{"--root", "/r", "build", "."}, []string{"--root=/r", "build", "--", "."}},
		"global behind":          {[]string{"build", ".", "-D", "--root=/r"}, []string{"--debug", "--root=/r", "build", "--", "."}},
		"run stops":              {[]string{"run", "-it", "alpine", "ls", "-t", "--env"}, []string{"run", "--interactive", "--tty", "--", "alpine", "ls", "-t", "--env"}},
		"run own dash":           {[]string{"run", "-e", "A=1", "--", "alpine", "--", "x"}, []string{"run", "--env=A=1", "--", "alpine", "--", "x"}},
		"nested alias":           {[]string{"image", "list", "-q"}, []string{"image", "ls", "--quiet"}},
		"help flag":              {[]string{"image", "ls", "-h"}, []string{"image", "ls", "--help"}},
		"help command":           {[]string{"help", "build"}, []string{"help", "--", "build"}},
		"nothing":                {nil, nil},
		"completion":             {[]string{"build", "--ta", CompletionFlag}, []string{"build", "--ta", CompletionFlag}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Normalize(testApp(), append([]string{"shale"}, tc.args...), "run")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]string{"shale"}, tc.want...), got); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNormalizeErrors(t *testing.T) {
	tests := map[string]struct {
		args          []string
		message, hint string
	}{
		"near flag":       {[]string{"build", "--no-cahce", "."}, "unknown flag: --no-cahce (did you mean --no-cache?)", "See 'shale build --help'."},
		"flag prefix":     {[]string{"build", "--no", "."}, "unknown flag: --no (did you mean --no-cache?)", "See 'shale build --help'."},
		"far flag":        {[]string{"build", "--zzzzzz", "."}, "unknown flag: --zzzzzz", "See 'shale build --help'."},
		"hidden flag":     {[]string{"build", "--secret-handshak", "."}, "unknown flag: --secret-handshak", "See 'shale build --help'."},
		"short":           {[]string{"build", "-qz", "."}, "unknown shorthand flag: 'z' in -qz", "See 'shale build --help'."},
		"one dash":        {[]string{"build", "-no-cache", "."}, "unknown flag: -no-cache (did you mean --no-cache?)", "See 'shale build --help'."},
		"one letter long": {[]string{"build", "--t", "x"}, "unknown flag: --t", "See 'shale build --help'."},
		"missing value":   {[]string{"build", ".", "-t"}, "flag needs an argument: -t", "See 'shale build --help'."},
		"missing long":    {[]string{"build", ".", "--file"}, "flag needs an argument: --file", "See 'shale build --help'."},
		"command":         {[]string{"biuld", "."}, "unknown command: shale biuld (did you mean build?)", "See 'shale --help'."},
		"subcommand":      {[]string{"image", "zzz"}, "unknown command: shale image zzz", "See 'shale image --help'."},
		"global":          {[]string{"--rot", "x", "build"}, "unknown flag: --rot (did you mean --root?)", "See 'shale --help'."},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Normalize(testApp(), append([]string{"shale"}, tc.args...), "run")
			var usage *UsageError
			if !errors.As(err, &usage) {
				t.Fatalf("error %v, want a *UsageError", err)
			}
			if usage.Error() != tc.message || usage.Hint() != tc.hint {
				t.Errorf("got %q %q, want %q %q", usage.Error(), usage.Hint(), tc.message, tc.hint)
			}
		})
	}
}

// FuzzNormalize checks that the normal form is a fixed point: Normalize must return it
// unchanged.
func FuzzNormalize(f *testing.F) {
	f.Add("build", ".", "-t", "x")
	f.Add("run", "-it", "alpine", "--")
	f.Add("--root=/x", "image", "ls", "-q")
	f.Add("-Dq", "--", "-é", "\xff")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		once, err := Normalize(testApp(), []string{"shale", a, b, c, d}, "run")
		if err != nil {
			return
		}
		twice, err := Normalize(testApp(), append([]string(nil), once...), "run")
		if err != nil {
			t.Fatalf("normal form %q is refused: %v", once, err)
		}
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Errorf("normal form changes (-once +twice):\n%s", diff)
		}
	})
}
