package server

import (
	"net/http"
	"slices"
	"strings"

	"github.com/fairway-project/fairway/registry"
)

// account is an infrastructure account as Zalando's clients expect it. It is put together from the
// clusters that name it; where they do not agree, a field is empty.
type account struct {
	ID               string `json:"id"`
	Type             string `json:"type"`
	Name             string `json:"name"`
	Owner            string `json:"owner"`
	CostCenter       string `json:"cost_center"`
	Environment      string `json:"environment"`
	CriticalityLevel int    `json:"criticality_level"` // the highest one
	ExternalID       string `json:"external_id"`
	LifecycleStatus  string `json:"lifecycle_status"`
}

// accounts are in the order of their first cluster.
func accounts(entries []Entry) []account {
	out := []account{}
	for _, e := range entries {
		i := slices.IndexFunc(out, func(a account) bool { return a.ID == e.InfrastructureAccount })
		if i < 0 {
			out = append(out, newAccount(e.Cluster))
			continue
		}
		a := &out[i]
		a.CriticalityLevel = max(a.CriticalityLevel, e.CriticalityLevel)
		if a.Owner != e.Owner {
			a.Owner = ""
		}
		if a.Environment != e.Environment {
			a.Environment = ""
		}
	}
	return out
}

func newAccount(c registry.Cluster) account {
	kind, number, _ := strings.Cut(c.InfrastructureAccount, ":")
	return account{
		ID: c.InfrastructureAccount, Type: kind, Name: c.InfrastructureAccount, Owner: c.Owner, Environment: c.Environment,
		CriticalityLevel: c.CriticalityLevel, ExternalID: number, LifecycleStatus: "ready",
	}
}

func (s *Server) listAccounts(w http.ResponseWriter, r *http.Request, _ Token) error {
	query, err := parameters(r, "lifecycle_status")
	if err != nil {
		return err
	}
	entries, tag, err := s.store.List(r.Context())
	if err != nil || unchanged(w, r, `"`+tag+`"`) {
		return err
	}
	items := accounts(entries)
	if wanted, given := query["lifecycle_status"]; given && !slices.Contains(wanted, "ready") {
		items = []account{}
	}
	return answer(w, http.StatusOK, map[string]any{"items": items})
}

func (s *Server) getAccount(w http.ResponseWriter, r *http.Request, _ Token) error {
	entries, tag, err := s.store.List(r.Context())
	if err != nil {
		return err
	}
	all := accounts(entries)
	i := slices.IndexFunc(all, func(a account) bool { return a.ID == r.PathValue("account_id") })
	if i < 0 {
		return failed(http.StatusNotFound, "no cluster is in an infrastructure account %.100q", r.PathValue("account_id"))
	}
	if unchanged(w, r, `"`+tag+`"`) {
		return nil
	}
	return answer(w, http.StatusOK, all[i])
}
