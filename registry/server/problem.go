package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// problem is an error that a client is told, as RFC 7807 has it.
type problem struct {
	Type   string `json:"type"` // about:blank, since the HTTP status says what kind it is
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func (p *problem) Error() string { return p.Detail }

func failed(status int, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// plainProblem is a problem for clients that want application/json and nothing else, as those generated
// from Zalando's description do: it has the fields of that one's errors too.
type plainProblem struct {
	problem
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (p *problem) write(w http.ResponseWriter, r *http.Request) {
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="cluster registry"`)
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	}
	w.Header().Del("ETag")
	w.Header().Del("Location")
	kind, body := "application/problem+json", any(p)
	if strings.TrimSpace(r.Header.Get("Accept")) == "application/json" {
		kind, body = "application/json", plainProblem{problem: *p, Code: p.Status, Message: p.Detail}
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
