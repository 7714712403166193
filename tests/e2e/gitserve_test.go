//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shale-build/shale/builder/source/git/gittest"
)

// gitserve ROOT ADDRESSES serves the repositories below ROOT until it is ended by a
// signal. It serves them over smart HTTP, over SSH to clients with the key in
// ROOT/key.pub, and over a second HTTP port that requires the header in
// ROOT/authorization. It writes the addresses to the file ADDRESSES in shell syntax, and
// logs requests to ROOT/requests.
func gitserve(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: gitserve ROOT ADDRESSES")
	}
	root, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	smart, err := gittest.Smart(root)
	if err != nil {
		return err
	}
	requests, err := os.Create(filepath.Join(root, "requests"))
	if err != nil {
		return err
	}
	logged := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(requests, "%s %s\n", r.Method, r.URL.Path)
		smart.ServeHTTP(w, r)
	})
	open, err := listenHTTP(logged)
	if err != nil {
		return err
	}
	header, err := os.ReadFile(filepath.Join(root, "authorization"))
	if err != nil {
		return err
	}
	private, err := listenHTTP(gittest.Authorized(strings.TrimSpace(string(header)), logged))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(root, "key.pub"))
	if err != nil {
		return err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return err
	}
	server, err := gittest.ServeSSH(root, key)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("HTTP=%s\nPRIVATE=%s\nSSH=%s\nHOSTKEY='%s'\n", open, private, server.Addr, server.HostKey)
	if err := os.WriteFile(args[1]+".new", []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Rename(args[1]+".new", args[1]); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	<-end
	return nil
}

// listenHTTP serves h on a free port of loopback and returns its address.
func listenHTTP(h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go srv.Serve(l)
	return l.Addr().String(), nil
}
