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

// printUnused prints a warning about build arguments that no ARG declares, in the words
// of docker.
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
	// The error is ignored: if the terminal is closed, it cannot show the error either.
	_, _ = fmt.Fprintf(w, "[Warning] One or more build-args %v were not consumed\n%s", names, hints.String())
}

// dockerProxies holds the proxies for builds in docker's own configuration file.
type dockerProxies struct {
	HTTP  string `json:"httpProxy"`
	HTTPS string `json:"httpsProxy"`
	FTP   string `json:"ftpProxy"`
	None  string `json:"noProxy"`
}

// addProxies adds the default proxies of docker's configuration file to args. docker
// passes these to every build as arguments. Arguments that are already in args stay as
// they are. Steps see these proxies and not the environment of the command, as with
// docker.
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
