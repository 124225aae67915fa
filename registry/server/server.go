// Package server is the REST server of the cluster registry. Its paths and fields are those of
// Zalando's cluster registry, so that clients of that one can use it.
package server

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Server answers requests for clusters in a store.
type Server struct {
	store  *Store
	tokens *Tokens
	log    *slog.Logger
}

// New returns a server; it is an http.Handler.
func New(store *Store, tokens *Tokens, log *slog.Logger) http.Handler {
	s := &Server{store: store, tokens: tokens, log: log}
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, route := range s.routes() {
		methods[route.path] = append(methods[route.path], route.method)
		mux.HandleFunc(route.method+" "+route.path, s.serve(route))
	}
	for path, allowed := range methods {
		if slices.Contains(allowed, http.MethodGet) {
			allowed = append(allowed, http.MethodHead)
		}
		slices.Sort(allowed)
		list := strings.Join(allowed, ", ")
		mux.HandleFunc(path, s.serve(route{anybody: true, handle: func(w http.ResponseWriter, r *http.Request, _ Token) error {
			w.Header().Set("Allow", list)
			return failed(http.StatusMethodNotAllowed, "%s is not possible here; possible are %s", r.Method, list)
		}}))
	}
	mux.HandleFunc("/", s.serve(route{anybody: true, handle: func(http.ResponseWriter, *http.Request, Token) error {
		return failed(http.StatusNotFound, "there is nothing at this path; /openapi.yaml describes what there is")
	}}))
	return mux
}

// route is something that can be asked for.
type route struct {
	method, path string
	anybody      bool   // needs no token
	roles        []Role // that may; all if there are none
	handle       func(http.ResponseWriter, *http.Request, Token) error
}

const (
	aCluster = "/kubernetes-clusters/{cluster_id}"
	aPool    = aCluster + "/node-pools/{node_pool_name}"
)

// routes are what openapi.yaml describes.
func (s *Server) routes() []route {
	writer := []Role{Write}
	return []route{
		{method: "GET", path: "/kubernetes-clusters", handle: s.listClusters},
		{method: "POST", path: "/kubernetes-clusters", roles: writer, handle: s.createCluster},
		{method: "GET", path: aCluster, handle: s.getCluster},
		{method: "PATCH", path: aCluster, roles: []Role{Write, Status}, handle: s.updateCluster},
		{method: "DELETE", path: aCluster, roles: writer, handle: s.deleteCluster},

		{method: "GET", path: aCluster + "/config-items", handle: s.listConfigItems},
		{method: "GET", path: aCluster + "/config-items/{config_key}", handle: s.getConfigItem},
		{method: "PUT", path: aCluster + "/config-items/{config_key}", roles: writer, handle: s.putConfigItem},
		{method: "DELETE", path: aCluster + "/config-items/{config_key}", roles: writer, handle: s.deleteConfigItem},

		{method: "GET", path: aCluster + "/node-pools", handle: s.listPools},
		{method: "POST", path: aCluster + "/node-pools", roles: writer, handle: s.createPool},
		{method: "GET", path: aPool, handle: s.getPool},
		{method: "PUT", path: aPool, roles: writer, handle: s.putPool},
		{method: "PATCH", path: aPool, roles: writer, handle: s.updatePool},
		{method: "DELETE", path: aPool, roles: writer, handle: s.deletePool},
		{method: "PUT", path: aPool + "/config-items/{config_key}", roles: writer, handle: s.putConfigItem},
		{method: "DELETE", path: aPool + "/config-items/{config_key}", roles: writer, handle: s.deleteConfigItem},

		{method: "GET", path: "/infrastructure-accounts", handle: s.listAccounts},
		{method: "GET", path: "/infrastructure-accounts/{account_id}", handle: s.getAccount},

		{method: "GET", path: "/openapi.yaml", anybody: true, handle: describe},
		{method: "GET", path: "/healthz", anybody: true, handle: s.health},
	}
}

//go:embed openapi.yaml
var description []byte

func describe(w http.ResponseWriter, _ *http.Request, _ Token) error {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(description)
	return nil
}

func (s *Server) health(w http.ResponseWriter, r *http.Request, _ Token) error {
	if err := s.store.Ping(r.Context()); err != nil {
		return err
	}
	return answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// answerWithin bounds the work on one request.
const answerWithin = 20 * time.Second

// serve lets in who may, bounds the time, writes errors and logs.
func (s *Server) serve(to route) http.HandlerFunc {
	return func(writer http.ResponseWriter, r *http.Request) {
		began := time.Now()
		w := &recorder{ResponseWriter: writer}
		ctx, cancel := context.WithTimeout(r.Context(), answerWithin)
		defer cancel()
		w.Header().Set("Cache-Control", "no-cache") // config items may be secrets, and others change them
		w.Header().Set("X-Content-Type-Options", "nosniff")
		caller, err := s.admit(r, to)
		if err == nil {
			err = to.handle(w, r.WithContext(ctx), caller)
		}
		if err != nil {
			s.problem(err, r, caller).write(w, r)
		}
		level := slog.LevelInfo
		switch {
		case w.status >= 400:
			level = slog.LevelWarn
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			level = slog.LevelDebug
		}
		s.log.Log(ctx, level, "answered", "method", r.Method, "path", r.URL.Path, "status", w.status, "caller", caller.Name,
			"remote", r.RemoteAddr, "took", time.Since(began).String(), "problem", text(err))
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (s *Server) admit(r *http.Request, to route) (Token, error) {
	if to.anybody {
		return Token{}, nil
	}
	scheme, presented, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || presented == "" {
		return Token{}, failed(http.StatusUnauthorized, "a bearer token is missing: Authorization: Bearer TOKEN")
	}
	caller, found := s.tokens.find(strings.TrimSpace(presented))
	if !found {
		return Token{}, failed(http.StatusUnauthorized, "the token is not known")
	}
	if len(to.roles) > 0 && !slices.Contains(to.roles, caller.Role) {
		return caller, failed(http.StatusForbidden, "the token of %s has the role %s; this needs %s", caller.Name, caller.Role, to.roles[0])
	}
	return caller, nil
}

// problem says what a client is told about an error. What is wrong with the store is only logged.
func (s *Server) problem(err error, r *http.Request, caller Token) *problem {
	var told *problem
	var taken *TakenError
	switch {
	case errors.As(err, &told):
		return told
	case errors.Is(err, ErrUnknown):
		return failed(http.StatusNotFound, "there is no cluster %.100q", r.PathValue("cluster_id"))
	case errors.As(err, &taken):
		return failed(http.StatusConflict, "%v", taken)
	case r.Context().Err() != nil: // it is gone, and reads nothing
		return failed(http.StatusServiceUnavailable, "the request was ended")
	}
	s.log.Error("the database fails", "method", r.Method, "path", r.URL.Path, "caller", caller.Name, "error", err)
	return failed(http.StatusServiceUnavailable, "the registry's database does not answer as it should; the server's log says more")
}

// answer writes a JSON document.
func answer(w http.ResponseWriter, status int, body any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(encoded, '\n')) // a client that is gone needs no answer
	return nil
}

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(data []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(data)
}

// Unwrap lets net/http reach what is below, for limits of bodies.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
