//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// registrylog REGISTRY PORT LOG forwards requests from PORT of loopback to REGISTRY until
// it is ended by a signal. For each request, it writes a line "METHOD PATH STATUS" to the
// file LOG. A scenario may empty that file at any time. While the file LOG.hold exists,
// uploads wait. The file LOG.held is created when an upload waits.
func registrylog(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: registrylog REGISTRY PORT LOG")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+args[1])
	if err != nil {
		return err
	}
	log, err := os.OpenFile(args[2], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	// The Host header is not changed, so the upload locations that the registry returns
	// lead to this proxy too.
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: args[0]})
	proxy.ModifyResponse = func(r *http.Response) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintf(log, "%s %s %d\n", r.Request.Method, r.Request.URL.Path, r.StatusCode)
		return err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Method != http.MethodGet && r.Method != http.MethodHead {
			if _, err := os.Stat(args[2] + ".hold"); err != nil {
				break
			}
			_ = os.WriteFile(args[2]+".held", nil, 0o644)
			time.Sleep(20 * time.Millisecond)
		}
		proxy.ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go srv.Serve(listener)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}
