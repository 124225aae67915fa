package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestOnlyTheListOfANodesPodsIsHeldBack(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	get := func(by time.Duration, query string) (took time.Duration) {
		began := time.Now()
		response, err := (&http.Client{Transport: lateList{http.DefaultTransport, by}, Timeout: time.Minute}).Get(server.URL + "/api/v1/pods" + query)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		response.Body.Close()
		return time.Since(began)
	}
	for _, query := range []string{"", "?watch=true", "?fieldSelector=metadata.name%3Da"} {
		get(time.Hour, query)
	}
	if took := get(50*time.Millisecond, "?fieldSelector=spec.nodeName%3Dip-10-0-0-1"); took < 50*time.Millisecond {
		t.Errorf("it came after %s", took)
	}
}
