package main

import (
	"net/http"
	"strings"
	"time"
)

// waitForLease holds back the list of a node's pods for a while. Kwok asks for it when it has made the node's lease,
// and ignores all pods of a node whose lease its own watch has not shown yet: a pod of such a list would
// never start.
func waitForLease(next http.RoundTripper) http.RoundTripper {
	return lateList{next, time.Second}
}

type lateList struct {
	next http.RoundTripper
	by   time.Duration
}

func (l lateList) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method == http.MethodGet && strings.HasPrefix(request.URL.Query().Get("fieldSelector"), "spec.nodeName=") {
		select {
		case <-request.Context().Done():
			return nil, request.Context().Err()
		case <-time.After(l.by):
		}
	}
	return l.next.RoundTrip(request)
}
