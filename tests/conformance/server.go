package conformance

import (
	"fmt"
	"net"
	"net/http"
	"net/http/cgi" //nolint:gosec // Go is newer
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// server serves the files of a case on loopback, if its Servers contain "http":
//
//   - Files below http/ in the working directory. The modification time is sent as
//     Last-Modified, and there is an ETag. For a directory, index.html is sent.
//   - Repositories below git/, at /git/, through git's own http-backend.
//   - If a file ".authorization" is beside a file or repository, requests must send its
//     content as Authorization.
//
// Requests are logged to the file requests as "METHOD PATH STATUS".
type server struct {
	dir      string
	listener net.Listener
	http     *http.Server

	mu  sync.Mutex
	log *os.File
}

func startServer(dir, address string) (*server, error) {
	listener, err := net.Listen("tcp", address) //nolint:noctx // immediate
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "requests"))
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir, listener: listener, log: log}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	go s.http.Serve(listener) //nolint:errcheck // ends with Close
	return s, nil
}

func (s *server) addr() string { return s.listener.Addr().String() }

func (s *server) close() error {
	err := s.http.Close()
	_ = s.log.Close()
	return err
}

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	recorded := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	s.answer(recorded, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.log, "%s %s %d\n", r.Method, r.URL.RequestURI(), recorded.status)
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	if repository, ok := strings.CutPrefix(r.URL.Path, "/git/"); ok {
		first, _, _ := strings.Cut(repository, "/")
		if s.allowed(w, r, filepath.Join(s.dir, "git", first)) {
			s.git(w, r)
		}
		return
	}
	file := filepath.Join(s.dir, "http", filepath.FromSlash(r.URL.Path))
	if strings.HasSuffix(r.URL.Path, "/") {
		file = filepath.Join(file, "index.html")
	}
	content, err := os.ReadFile(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	if !s.allowed(w, r, file) {
		return
	}
	info, err := os.Stat(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", digest.FromBytes(content).Encoded()[:16]))
	if name, err := os.ReadFile(file + ".disposition"); err == nil {
		w.Header().Set("Content-Disposition", strings.TrimSpace(string(name)))
	}
	http.ServeContent(w, r, file, info.ModTime(), strings.NewReader(string(content)))
}

// allowed reports whether the request has the authorization that is required for file. If
// not, it sends the error response.
func (s *server) allowed(w http.ResponseWriter, r *http.Request, file string) bool {
	want, err := os.ReadFile(filepath.Join(filepath.Dir(file), ".authorization"))
	if err != nil {
		want, err = os.ReadFile(file + ".authorization")
	}
	if err != nil || r.Header.Get("Authorization") == strings.TrimSpace(string(want)) {
		return true
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="conformance"`)
	http.Error(w, "unauthorized", http.StatusUnauthorized)
	return false
}

func (s *server) git(w http.ResponseWriter, r *http.Request) {
	path, err := exec.Command("git", "--exec-path").Output() //nolint:noctx // immediate
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	handler := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Root: "/git",
		Env: []string{
			"GIT_PROJECT_ROOT=" + filepath.Join(s.dir, "git"), "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
			"GIT_CONFIG_KEY_1=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_1=true",
		},
	}
	handler.ServeHTTP(w, r)
}

// statusWriter records the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
