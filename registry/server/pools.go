package server

import (
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/fairway-project/fairway/registry"
)

func (s *Server) listPools(w http.ResponseWriter, r *http.Request, _ Token) error {
	e, err := s.store.Get(r.Context(), r.PathValue("cluster_id"))
	if err != nil || unchanged(w, r, e.etag()) {
		return err
	}
	items := []registry.NodePool{}
	return answer(w, http.StatusOK, map[string]any{"items": append(items, e.NodePools...)})
}

func (s *Server) getPool(w http.ResponseWriter, r *http.Request, _ Token) error {
	e, err := s.store.Get(r.Context(), r.PathValue("cluster_id"))
	if err != nil {
		return err
	}
	pool, err := poolOf(e.Cluster, r.PathValue("node_pool_name"))
	if err != nil || unchanged(w, r, e.etag()) {
		return err
	}
	return answer(w, http.StatusOK, pool)
}

func poolOf(c registry.Cluster, name string) (registry.NodePool, error) {
	pool, found := c.Pool(name)
	if !found {
		return pool, failed(http.StatusNotFound, "cluster %s has no node pool %.100q", c.ID, name)
	}
	return pool, nil
}

func poolFields(p *registry.NodePool) map[string]any {
	return map[string]any{
		"name": &p.Name, "profile": &p.Profile, "instance_types": &p.InstanceTypes, "min_size": &p.MinSize, "max_size": &p.MaxSize,
		"discount_strategy": &p.DiscountStrategy, "config_items": &p.ConfigItems,
	}
}

func (s *Server) createPool(w http.ResponseWriter, r *http.Request, _ Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	var pool registry.NodePool
	if err := body.into(poolFields(&pool)); err != nil {
		return err
	}
	w.Header().Set("Location", "/kubernetes-clusters/"+url.PathEscape(r.PathValue("cluster_id"))+"/node-pools/"+url.PathEscape(pool.Name))
	return s.changePools(w, r, pool.Name, http.StatusCreated, func(c registry.Cluster, i int) ([]registry.NodePool, error) {
		if i >= 0 {
			return nil, failed(http.StatusConflict, "cluster %s has a node pool %s already", c.ID, pool.Name)
		}
		return append(slices.Clone(c.NodePools), pool), nil
	})
}

func (s *Server) putPool(w http.ResponseWriter, r *http.Request, _ Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("node_pool_name")
	pool := registry.NodePool{Name: name}
	if err := body.into(poolFields(&pool)); err != nil {
		return err
	}
	if err := sameName(pool, name); err != nil {
		return err
	}
	return s.changePools(w, r, name, http.StatusOK, func(c registry.Cluster, i int) ([]registry.NodePool, error) {
		pools := slices.Clone(c.NodePools)
		if i < 0 {
			return append(pools, pool), nil
		}
		pools[i] = pool
		return pools, nil
	})
}

func (s *Server) updatePool(w http.ResponseWriter, r *http.Request, _ Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	name := r.PathValue("node_pool_name")
	return s.changePools(w, r, name, http.StatusOK, func(c registry.Cluster, _ int) ([]registry.NodePool, error) {
		pools := slices.Clone(c.NodePools)
		pool, err := poolOf(c, name)
		if err != nil {
			return nil, err
		}
		all := poolFields(&pool)
		replaced(all, body)
		if err := body.into(all); err != nil {
			return nil, err
		}
		if err := sameName(pool, name); err != nil {
			return nil, err
		}
		pools[slices.IndexFunc(pools, named(name))] = pool
		return pools, nil
	})
}

func sameName(pool registry.NodePool, name string) error {
	if pool.Name != name {
		return failed(http.StatusBadRequest, "name: is %.100q; the name of node pool %s never changes", pool.Name, name)
	}
	return nil
}

func named(name string) func(registry.NodePool) bool {
	return func(p registry.NodePool) bool { return p.Name == name }
}

// changePools replaces the pools of a cluster, and answers with the one of that name. The function
// gets the index of that one, or -1.
func (s *Server) changePools(w http.ResponseWriter, r *http.Request, name string, status int, change func(registry.Cluster, int) ([]registry.NodePool, error)) error {
	e, err := s.store.Change(r.Context(), r.PathValue("cluster_id"), func(e *Entry) error {
		if err := e.checkMatch(r); err != nil {
			return err
		}
		pools, err := change(e.Cluster, slices.IndexFunc(e.NodePools, named(name)))
		if err != nil {
			return err
		}
		e.NodePools = pools
		e.Cluster, err = checked(e.Cluster)
		return err
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.etag())
	pool, found := e.Pool(name)
	if !found {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return answer(w, status, pool)
}

func (s *Server) deletePool(w http.ResponseWriter, r *http.Request, _ Token) error {
	name := r.PathValue("node_pool_name")
	return s.changePools(w, r, name, http.StatusNoContent, func(c registry.Cluster, i int) ([]registry.NodePool, error) {
		if i < 0 {
			_, err := poolOf(c, name)
			return nil, err
		}
		return slices.Delete(slices.Clone(c.NodePools), i, i+1), nil
	})
}

type configValue struct {
	Value string `json:"value"`
}

func (s *Server) listConfigItems(w http.ResponseWriter, r *http.Request, _ Token) error {
	e, err := s.store.Get(r.Context(), r.PathValue("cluster_id"))
	if err != nil || unchanged(w, r, e.etag()) {
		return err
	}
	items := map[string]string{}
	maps.Copy(items, e.ConfigItems)
	return answer(w, http.StatusOK, items)
}

func (s *Server) getConfigItem(w http.ResponseWriter, r *http.Request, _ Token) error {
	e, err := s.store.Get(r.Context(), r.PathValue("cluster_id"))
	if err != nil {
		return err
	}
	value, found := e.ConfigItems[r.PathValue("config_key")]
	if !found {
		return noItem(r)
	}
	if unchanged(w, r, e.etag()) {
		return nil
	}
	return answer(w, http.StatusOK, configValue{value})
}

func noItem(r *http.Request) error {
	return failed(http.StatusNotFound, "there is no config item %.100q", r.PathValue("config_key"))
}

func (s *Server) putConfigItem(w http.ResponseWriter, r *http.Request, _ Token) error {
	body, err := readObject(w, r)
	if err != nil {
		return err
	}
	if _, given := body["value"]; !given {
		return failed(http.StatusBadRequest, "value: is missing")
	}
	var item configValue
	if err := body.into(map[string]any{"value": &item.Value}); err != nil {
		return err
	}
	e, err := s.changeConfigItems(r, func(items map[string]string) error {
		items[r.PathValue("config_key")] = item.Value
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.etag())
	return answer(w, http.StatusOK, item)
}

func (s *Server) deleteConfigItem(w http.ResponseWriter, r *http.Request, _ Token) error {
	e, err := s.changeConfigItems(r, func(items map[string]string) error {
		if _, found := items[r.PathValue("config_key")]; !found {
			return noItem(r)
		}
		delete(items, r.PathValue("config_key"))
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("ETag", e.etag())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// changeConfigItems changes a copy of the items of the cluster, or of the node pool that the path
// names, and keeps it.
func (s *Server) changeConfigItems(r *http.Request, change func(map[string]string) error) (Entry, error) {
	return s.store.Change(r.Context(), r.PathValue("cluster_id"), func(e *Entry) error {
		if err := e.checkMatch(r); err != nil {
			return err
		}
		items := &e.ConfigItems
		if name := r.PathValue("node_pool_name"); name != "" {
			if _, err := poolOf(e.Cluster, name); err != nil {
				return err
			}
			e.NodePools = slices.Clone(e.NodePools)
			items = &e.NodePools[slices.IndexFunc(e.NodePools, named(name))].ConfigItems
		}
		next := map[string]string{}
		maps.Copy(next, *items)
		if err := change(next); err != nil {
			return err
		}
		*items = next
		var err error
		e.Cluster, err = checked(e.Cluster)
		return err
	})
}
