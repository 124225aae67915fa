package server

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-project/fairway/registry"
)

// clusterView is how a cluster is shown. Zalando's clients rely on some fields to be there.
type clusterView struct {
	registry.Cluster
	Alias     string     `json:"alias"`
	Status    statusView `json:"status"`
	CreatedAt time.Time  `json:"created_at"`
}

type statusView struct {
	registry.Status
	Problems []registry.Problem `json:"problems"`
}

func view(e Entry, verbose bool) clusterView {
	v := clusterView{Cluster: e.Cluster, Alias: e.Alias, CreatedAt: e.Created}
	v.Status = statusView{Status: *e.Cluster.Status, Problems: e.Cluster.Status.Problems}
	if v.Status.Problems == nil {
		v.Status.Problems = []registry.Problem{}
	}
	if !verbose {
		v.ConfigItems, v.NodePools = nil, nil
	}
	return v
}

// filters are the parameters of a list that select clusters by the value of a field.
var filters = map[string]func(registry.Cluster) string{
	"id":                     func(c registry.Cluster) string { return c.ID },
	"alias":                  func(c registry.Cluster) string { return c.Alias },
	"local_id":               func(c registry.Cluster) string { return c.LocalID },
	"api_server_url":         func(c registry.Cluster) string { return c.APIServerURL },
	"channel":                func(c registry.Cluster) string { return c.Channel },
	"criticality_level":      func(c registry.Cluster) string { return strconv.Itoa(c.CriticalityLevel) },
	"environment":            func(c registry.Cluster) string { return c.Environment },
	"infrastructure_account": func(c registry.Cluster) string { return c.InfrastructureAccount },
	"lifecycle_status":       func(c registry.Cluster) string { return string(c.LifecycleStatus) },
	"owner":                  func(c registry.Cluster) string { return c.Owner },
	"provider":               func(c registry.Cluster) string { return c.Provider },
	"region":                 func(c registry.Cluster) string { return c.Region },
}

func (s *Server) listClusters(w http.ResponseWriter, r *http.Request, _ Token) error {
	query, err := parameters(r, append(slices.Collect(maps.Keys(filters)), "verbose")...)
	if err != nil {
		return err
	}
	verbose, err := isVerbose(query)
	if err != nil {
		return err
	}
	entries, tag, err := s.store.List(r.Context())
	if err != nil {
		return err
	}
	if unchanged(w, r, strconv.Quote(tag)) {
		return nil
	}
	items := []clusterView{}
	for _, e := range entries {
		if matches(e.Cluster, query) {
			items = append(items, view(e, verbose))
		}
	}
	return answer(w, http.StatusOK, map[string]any{"items": items})
}

// matches says whether a cluster has, of each parameter, one of the values that are asked for.
func matches(c registry.Cluster, query url.Values) bool {
	for name, values := range query {
		if field, filters := filters[name]; filters && !slices.Contains(values, field(c)) {
			return false
		}
	}
	return true
}

// parameters refuses those that are not known: a filter that does nothing shows too much.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, failed(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	for name := range query {
		if !slices.Contains(known, name) {
			slices.Sort(known)
			return nil, failed(http.StatusBadRequest, "%.100q is no known parameter; there are %s", name, strings.Join(known, ", "))
		}
	}
	return query, nil
}

func isVerbose(query url.Values) (bool, error) {
	if !query.Has("verbose") {
		return true, nil
	}
	verbose, err := strconv.ParseBool(query.Get("verbose"))
	if err != nil {
		return false, failed(http.StatusBadRequest, "verbose: is %.100q; must be true or false", query.Get("verbose"))
	}
	return verbose, nil
}

func (s *Server) getCluster(w http.ResponseWriter, r *http.Request, _ Token) error {
	query, err := parameters(r, "verbose")
	if err != nil {
		return err
	}
	verbose, err := isVerbose(query)
	if err != nil {
		return err
	}
	e, err := s.store.Get(r.Context(), r.PathValue("cluster_id"))
	if err != nil {
		return err
	}
	if unchanged(w, r, e.etag()) {
		return nil
	}
	return answer(w, http.StatusOK, view(e, verbose))
}

// etag changes with everything. What people want, which is what If-Match is about, stands first.
func (e Entry) etag() string {
	return fmt.Sprintf("%q", fmt.Sprintf("%d.%d", e.Revision, e.StatusRevision))
}

// unchanged tells a client that it knows the newest state already.
func unchanged(w http.ResponseWriter, r *http.Request, etag string) bool {
	w.Header().Set("ETag", etag)
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if known = strings.TrimPrefix(strings.TrimSpace(known), "W/"); known == etag || known == "*" {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// checkMatch refuses to change what is not any more as the client has seen it. A status that was
// written meanwhile does not count.
func (e Entry) checkMatch(r *http.Request) error {
	seen := r.Header.Get("If-Match")
	if seen == "" {
		return nil
	}
	for etag := range strings.SplitSeq(seen, ",") {
		etag = strings.TrimSpace(etag)
		revision, _, _ := strings.Cut(strings.Trim(etag, `"`), ".")
		if etag == "*" || revision == strconv.FormatInt(e.Revision, 10) {
			return nil
		}
	}
	return failed(http.StatusPreconditionFailed, "cluster %s has been changed meanwhile: its ETag is %s; read it again", e.ID, e.etag())
}

// fields are what people may want of a cluster.
func fields(c *registry.Cluster) map[string]any {
	return map[string]any{
		"id": &c.ID, "alias": &c.Alias, "local_id": &c.LocalID, "api_server_url": &c.APIServerURL, "channel": &c.Channel,
		"config_items": &c.ConfigItems, "criticality_level": &c.CriticalityLevel, "environment": &c.Environment,
		"infrastructure_account": &c.InfrastructureAccount, "lifecycle_status": &c.LifecycleStatus, "node_pools": &c.NodePools,
		"owner": &c.Owner, "provider": &c.Provider, "region": &c.Region,
	}
}

func (s *Server) createCluster(w http.ResponseWriter, r *http.Request, _ Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	var ignored any
	var c registry.Cluster
	all := fields(&c)
	all["created_at"] = &ignored // Zalando's model has it; when that is, is not for clients to say
	if err := body.into(all); err != nil {
		return err
	}
	if c, err = checked(c); err != nil {
		return err
	}
	if err := s.store.Create(r.Context(), c); err != nil {
		return err
	}
	e, err := s.store.Get(r.Context(), c.ID)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.etag())
	w.Header().Set("Location", "/kubernetes-clusters/"+url.PathEscape(c.ID))
	return answer(w, http.StatusCreated, view(e, true))
}

// maxEntry bounds what people want of a cluster, in bytes of JSON: workers read all entries at once.
const maxEntry = 1 << 20

// checked applies the rules of a registry file.
func checked(c registry.Cluster) (registry.Cluster, error) {
	out, err := c.Checked()
	if err != nil {
		return c, failed(http.StatusBadRequest, "%v", err)
	}
	document, _, err := encode(out)
	if err != nil {
		return c, err
	}
	if len(document) > maxEntry {
		return c, failed(http.StatusBadRequest, "cluster %s: is %d bytes long with this; at most %d are kept", c.ID, len(document), maxEntry)
	}
	return out, nil
}

func (s *Server) updateCluster(w http.ResponseWriter, r *http.Request, caller Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	if err := mayUpdate(body, caller); err != nil {
		return err
	}
	e, err := s.store.Change(r.Context(), r.PathValue("cluster_id"), func(e *Entry) error {
		if err := e.checkMatch(r); err != nil {
			return err
		}
		next, status := e.Cluster, registry.Status{}
		all := fields(&next)
		all["status"] = &status
		replaced(all, body)
		if err := body.into(all); err != nil {
			return err
		}
		if next.ID != e.ID {
			return failed(http.StatusBadRequest, "id: is %.100q; the id of cluster %s never changes", next.ID, e.ID)
		}
		if _, given := body["status"]; given {
			next.Status = &status
		}
		if from, to := e.LifecycleStatus, next.LifecycleStatus; caller.Role == Status && from != to && !from.Moves(to) {
			return failed(http.StatusConflict, "lifecycle_status: cluster %s cannot become %.100q: it is %s, and the role status only moves on from requested to ready, and from decommission-requested to decommissioned", e.ID, to, from)
		}
		e.Cluster, err = checked(next)
		return err
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.etag())
	return answer(w, http.StatusOK, view(e, true))
}

// mayUpdate keeps what people want and what is known of a cluster apart.
func mayUpdate(body object, caller Token) error {
	if _, given := body["status"]; given && caller.Role != Status {
		return failed(http.StatusForbidden, "status: is written with tokens of the role status; the token of %s has the role %s", caller.Name, caller.Role)
	}
	if field, more := body.other("status", "lifecycle_status"); more && caller.Role == Status {
		return failed(http.StatusForbidden, "%.100s: is changed with tokens of the role write; the token of %s has the role %s", field, caller.Name, caller.Role)
	}
	return nil
}

// replaced empties lists and maps that a body has anew, so that nothing of the old ones stays, or
// is changed where others look at it.
func replaced(all map[string]any, body object) {
	for name := range body {
		switch field := all[name].(type) {
		case *map[string]string:
			*field = nil
		case *[]registry.NodePool:
			*field = nil
		case *[]string:
			*field = nil
		}
	}
}

func (s *Server) deleteCluster(w http.ResponseWriter, r *http.Request, _ Token) error {
	err := s.store.Delete(r.Context(), r.PathValue("cluster_id"), func(e Entry) error {
		if err := e.checkMatch(r); err != nil {
			return err
		}
		if e.LifecycleStatus == registry.Decommissioned || e.LifecycleStatus == registry.Requested && e.Status.CurrentVersion == "" && e.Status.NextVersion == "" {
			return nil
		}
		return failed(http.StatusConflict, "cluster %s is %s: deleting its entry would leave it behind without anybody who knows; set its lifecycle_status to decommission-requested first", e.ID, e.LifecycleStatus)
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
