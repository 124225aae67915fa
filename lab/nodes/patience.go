package main

import (
	"io"
	"log"
	"net/http"
	"time"
)

// waitForServer repeats what the API server did not answer, or answered with 5xx (so it does
// while etcd is away), until it does. Kwok would drop the step of a pod's life that such an
// answer hits, and let the pod hang in it for good.
func waitForServer(next http.RoundTripper) http.RoundTripper {
	return patience{next}
}

type patience struct{ next http.RoundTripper }

func (p patience) RoundTrip(request *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		again, err := repeatable(request)
		if err != nil {
			return nil, err
		}
		response, err := p.next.RoundTrip(again)
		if err == nil && response.StatusCode < http.StatusInternalServerError {
			return response, nil
		}
		if attempt == 1 {
			log.Printf("kwok: repeating %s %s: %s", request.Method, request.URL.Path, reason(response, err))
		}
		if response != nil {
			_, _ = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		select {
		case <-request.Context().Done():
			return nil, request.Context().Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// repeatable is the request with a body of its own, which the transport may use up.
func repeatable(request *http.Request) (*http.Request, error) {
	again := request.Clone(request.Context())
	if request.GetBody != nil {
		body, err := request.GetBody()
		if err != nil {
			return nil, err
		}
		again.Body = body
	}
	return again, nil
}

func reason(response *http.Response, err error) string {
	if err != nil {
		return err.Error()
	}
	return response.Status
}
