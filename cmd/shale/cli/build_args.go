package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/builder/frontend"
)

// printUnused tells of build arguments that nobody takes, in docker's words.
func printUnused(w io.Writer, args []frontend.UnusedArg) {
	if len(args) == 0 {
		return
	}
	var names []string
	var hints strings.Builder
	for _, a := range args {
		names = append(names, a.Name)
		if a.Nearest != "" {
			fmt.Fprintf(&hints, " - %s (did you mean %s?)\n", a.Name, a.Nearest)
		}
	}
	// A terminal that is gone cannot be told so.
	_, _ = fmt.Fprintf(w, "[Warning] One or more build-args %v were not consumed\n%s", names, hints.String())
}

// dockerProxies are the proxies that docker's own configuration has for builds.
type dockerProxies struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	FTP   string `json:"ftpProxy"`
	None  string `json:"noProxy"`
}

// addProxies adds the default proxies of docker's configuration file, which
// docker passes to every build as arguments, to args unless they are there.
// The environment of the command is not what steps see, with docker or here.
func addProxies(args map[string]string, env lookupEnv) error {
	proxies, err := readProxies(env)
	if err != nil {
		return err
	}
	given := map[string]bool{}
	for name := range args {
		given[strings.ToUpper(name)] = true
	}
	for name, value := range map[string]string{
		"HTTP_PROXY": proxies.HTTP, "HTTPS_PROXY": proxies.HTTPS, "FTP_PROXY": proxies.FTP, "NO_PROXY": proxies.None,
	} {
		if value != "" && !given[name] {
			args[name] = value
		}
	}
	return nil
}

func readProxies(env lookupEnv) (dockerProxies, error) {
	dir, ok := env("DOCKER_CONFIG")
	if !ok || dir == "" {
		home, _ := env("HOME")
		if home == "" {
			return dockerProxies{}, nil
		}
		dir = filepath.Join(home, ".docker")
	}
	path := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return dockerProxies{}, nil
	}
	if err != nil {
		return dockerProxies{}, err
	}
	var file struct {
		Proxies map[string]dockerProxies `json:"proxies"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return dockerProxies{}, fmt.Errorf("decode %s: %w", path, err)
	}
	return file.Proxies["default"], nil
}
