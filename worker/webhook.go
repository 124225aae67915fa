package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/fairway-project/fairway/config"
)

// Bounds of the webhook.
const (
	maxHook    = 1 << 20          // bytes of a body
	hooksApart = 2 * time.Second  // between two syncs that hooks have asked for
	syncWithin = 10 * time.Second // for Temporal to take the request
	minSecret  = 16               // characters
)

// webhook has a sync started, and pull requests looked at, when the forge says that something has happened.
// What it says is not read: Fairway looks for itself. So a hook that is sent again does no harm.
type webhook struct {
	secret func() (string, error) // read whenever it is used, so that it can be changed
	asked  chan struct{}          // holds one request at most
	logger *zap.Logger
}

func newWebhook(settings config.Webhook, logger *zap.Logger) *webhook {
	return &webhook{secret: func() (string, error) { return readSecret(settings) }, asked: make(chan struct{}, 1), logger: logger}
}

// serveWebhook answers POST /hooks/sync until the context ends.
func serveWebhook(ctx context.Context, settings config.Webhook, sync func(context.Context) error, logger *zap.Logger) error {
	if _, err := readSecret(settings); err != nil {
		return &usageError{err}
	}
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return &usageError{fmt.Errorf("worker.webhook.listen: %w", err)}
	}
	hook := newWebhook(settings, logger)
	mux := http.NewServeMux()
	mux.Handle("POST /hooks/sync", hook)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
	}
	go hook.work(ctx, sync)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			logger.Error("webhooks are no longer served", zap.Error(err))
		}
	}()
	return nil
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secret, err := h.secret()
	if err != nil {
		h.logger.Error("a webhook cannot be verified", zap.Error(err))
		http.Error(w, "the worker has no secret to verify this with", http.StatusServiceUnavailable)
		return
	}
	mac := hmac.New(sha256.New, []byte(secret))
	if _, err := io.Copy(mac, http.MaxBytesReader(w, r.Body, maxHook)); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, fmt.Sprintf("the body is larger than %d bytes", maxHook), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "the body was not received", http.StatusBadRequest)
		return
	}
	if !signed(r.Header, mac.Sum(nil)) {
		h.logger.Warn("a webhook without a valid signature was refused", zap.String("from", r.RemoteAddr))
		http.Error(w, "X-Hub-Signature-256 or X-Gitea-Signature is missing or wrong", http.StatusUnauthorized)
		return
	}
	select {
	case h.asked <- struct{}{}:
	default: // one is waiting to be carried out already
	}
	w.WriteHeader(http.StatusAccepted)
}

// signed says whether one of the headers in which forges sign holds the sum.
func signed(header http.Header, sum []byte) bool {
	for name, prefix := range map[string]string{"X-Hub-Signature-256": "sha256=", "X-Gitea-Signature": ""} {
		if text, found := strings.CutPrefix(header.Get(name), prefix); found {
			if given, err := hex.DecodeString(text); err == nil && hmac.Equal(given, sum) {
				return true
			}
		}
	}
	return false
}

// work starts a sync for what was asked, however often, with a pause between two.
func (h *webhook) work(ctx context.Context, sync func(context.Context) error) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.asked:
		}
		within, cancel := context.WithTimeout(ctx, syncWithin)
		err := sync(within)
		cancel()
		if err != nil && ctx.Err() == nil {
			h.logger.Warn("not all that a webhook asked for was started; the next scheduled look does it", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(hooksApart):
		}
	}
}

func readSecret(settings config.Webhook) (string, error) {
	field, value := "secret_env", os.Getenv(settings.SecretEnv)
	if settings.SecretFile != "" {
		data, err := os.ReadFile(settings.SecretFile)
		if err != nil {
			return "", fmt.Errorf("worker.webhook.secret_file: %w", err)
		}
		field, value = "secret_file", string(data)
	}
	if value = strings.TrimSpace(value); len(value) < minSecret {
		return "", fmt.Errorf("worker.webhook.%s: the secret has %d characters; it needs at least %d, such as those of `openssl rand -hex 32`", field, len(value), minSecret)
	}
	return value, nil
}
