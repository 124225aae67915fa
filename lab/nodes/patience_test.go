package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestARequestIsRepeatedUntilTheServerAnswers(t *testing.T) {
	var bodies []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(body))
		switch len(bodies) {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
		case 2:
			panic(http.ErrAbortHandler) // closes the connection
		default:
			w.WriteHeader(http.StatusConflict)
		}
	}))
	defer server.Close()
	client := &http.Client{Transport: waitForServer(http.DefaultTransport)}
	response, err := client.Post(server.URL, "text/plain", strings.NewReader("step"))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got := strings.Join(bodies, " "); response.StatusCode != http.StatusConflict || got != "step step step" {
		t.Errorf("status %d after the bodies %q, want 409 after three whole ones", response.StatusCode, got)
	}
}

func TestWaitingForTheServerEndsWithTheContext(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := waitForServer(http.DefaultTransport).RoundTrip(request); err == nil {
		response.Body.Close()
		t.Error("a server that is gone has answered")
	}
}
