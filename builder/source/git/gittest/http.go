package gittest

import (
	"net/http"
	"net/http/cgi" //nolint:gosec // for tests
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Smart returns a handler that serves the repositories below root with git http-backend.
func Smart(root string) (http.Handler, error) {
	out, err := exec.Command("git", "--exec-path").Output() //nolint:noctx // asks nobody
	if err != nil {
		return nil, err
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Dir:  "/",
		Env: []string{
			"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "PATH=" + os.Getenv("PATH"),
			"HOME=/dev/null", "GIT_CONFIG_GLOBAL=" + config(root), "GIT_CONFIG_NOSYSTEM=1",
		},
	}, nil
}

// config writes a git configuration that trusts the repositories of all users.
func config(root string) string {
	name := filepath.Join(root, ".gitconfig")
	_ = os.WriteFile(name, []byte("[safe]\n\tdirectory = *\n[uploadpack]\n\tallowFilter = true\n"), 0o644) //nolint:gosec // a test's
	return name
}

// Dumb returns a handler that serves the files below root.
func Dumb(root string) http.Handler { return http.FileServer(http.Dir(root)) }

// Authorized returns a handler that requires this value in the Authorization header.
func Authorized(value string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != value {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, req)
	})
}
