package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"
)

// health answers whether the worker is alive and whether it can work.
type health struct {
	mu       sync.Mutex
	temporal client.Client // nil while the worker does not work (yet)
}

func (h *health) ready(temporal client.Client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.temporal = temporal
}

func (h *health) stopping() { h.ready(nil) }

func (h *health) check(ctx context.Context) error {
	h.mu.Lock()
	temporal := h.temporal
	h.mu.Unlock()
	if temporal == nil {
		return errors.New("not working")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := temporal.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("no answer from Temporal: %w", err)
	}
	return nil
}

// serve answers /metrics, /healthz and /readyz until the returned function is called.
func serve(address string, h *health, logger *zap.Logger) (stop func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("worker.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := h.check(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("metrics and health are no longer served", zap.Error(err))
		}
	}()
	return func() { _ = server.Close() }, nil
}
