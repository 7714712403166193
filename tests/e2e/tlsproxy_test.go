//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// tlsproxy HOST:PORT FILE serves a registry over TLS until it is ended by a signal. Its
// certificate is self-signed and therefore not trusted. The address is written to
// FILE.addr, the certificate to FILE.crt, and the requests to FILE.log.
func tlsproxy(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: tlsproxy HOST:PORT FILE")
	}
	log, err := os.Create(args[1] + ".log")
	if err != nil {
		return err
	}
	cert, data, err := selfSigned(tlsAddr)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", tlsAddr+":0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: args[0]})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(log, "%s %s\n", r.Method, r.URL.Path)
		r.Header.Set("X-Forwarded-Proto", "https") // the registry uses it in upload locations
		proxy.ServeHTTP(w, r)
	})}
	go server.Serve(listener)
	if err := os.WriteFile(args[1]+".crt", data, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(args[1]+".new", []byte(listener.Addr().String()), 0o644); err != nil {
		return err
	}
	if err := os.Rename(args[1]+".new", args[1]+".addr"); err != nil {
		return err
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	<-end
	return nil
}

// tlsAddr is a loopback address that programs do not treat as the local machine.
const tlsAddr = "127.0.0.2"

// selfSigned returns a self-signed certificate for an IP address, also as PEM.
func selfSigned(ip string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.ParseIP(ip)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
