package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of a connection. A client that is slower holds up nobody for longer.
const (
	headerWithin = 5 * time.Second
	bodyWithin   = 15 * time.Second
	answerTaken  = time.Minute
	idleFor      = 2 * time.Minute
	stopWithin   = 10 * time.Second
	maxHeader    = 64 << 10 // bytes
)

// Serve answers on the listener until ctx ends, and then what is under way, for up to 10 s. A nil
// certificate means HTTP.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, certificate *Certificate, log *slog.Logger) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerWithin,
		ReadTimeout:       bodyWithin,
		WriteTimeout:      answerTaken,
		IdleTimeout:       idleFor,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	if certificate != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificate.get}
	}
	failed := make(chan error, 1)
	go func() {
		if certificate != nil {
			failed <- server.ServeTLS(listener, "", "")
			return
		}
		failed <- server.Serve(listener)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("answering on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return errors.Join(fmt.Errorf("some requests were not answered within %v: %w", stopWithin, err), server.Close())
	}
	return nil
}

// Certificate is a TLS certificate with its key, in files that may be replaced at any time.
type Certificate struct {
	cert, key string
	log       *slog.Logger

	mutex    sync.Mutex
	modified time.Time
	current  *tls.Certificate
}

// OpenCertificate reads a certificate and its key, both in PEM form.
func OpenCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{cert: cert, key: key, log: log}
	return c, c.load()
}

func (c *Certificate) load() error {
	info, err := os.Stat(c.cert)
	if err != nil {
		return fmt.Errorf("reading the TLS certificate: %w", err)
	}
	if c.current != nil && info.ModTime().Equal(c.modified) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("reading the TLS certificate: %w", err)
	}
	c.current, c.modified = &pair, info.ModTime()
	return nil
}

// get is asked with each connection. A pair that is half replaced leaves the old one in use.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err := c.load(); err != nil {
		c.log.Error("the TLS certificate stays as it was", "error", err)
	}
	return c.current, nil
}
