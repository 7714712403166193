// Command idd hands out identifiers and greetings over HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"example.test/idd/greeting"
)

var version = "devel"

func main() {
	check := flag.Bool("check", false, "ask the running service whether it is well")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	addr := os.Getenv("LISTEN")
	run := serve
	if *check {
		run = ask
	}
	if err := run(ctx, addr); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, addr string) error {
	router := chi.NewRouter()
	router.Get("/id", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, uuid.New()) })
	router.Get("/version", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, version) })
	router.Get("/hello/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, greeting.For(chi.URLParam(r, "name")))
	})
	server := &http.Server{Addr: addr, Handler: router, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Shutdown(context.WithoutCancel(ctx))
	}()
	log.Printf("idd %s listens on %s", version, addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func ask(ctx context.Context, addr string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+local(addr)+"/version", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("unwell: %s", resp.Status)
	}
	return nil
}

// local is the address under which one's own machine answers.
func local(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}
