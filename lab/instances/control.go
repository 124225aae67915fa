package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// control is the lab's control socket. lab.Client would do the same, but with it every change to
// the lab would build the bridge anew.
type control struct{ client *http.Client }

func newControl(socket string) control {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	// A control plane takes seconds to start.
	return control{&http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 2 * time.Minute}}
}

// clusters lists the ids of the control planes that the lab has or is starting.
func (c control) clusters(ctx context.Context) (ids []string, err error) {
	err = c.call(ctx, http.MethodGet, "/clusters", &ids)
	return ids, err
}

// start starts a control plane and waits until it serves.
func (c control) start(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodPut, "/clusters/"+url.PathEscape(id), nil)
}

// stop stops a control plane.
func (c control) stop(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/clusters/"+url.PathEscape(id), nil)
}

func (c control) call(ctx context.Context, method, path string, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return fmt.Errorf("asking the lab: %w", err)
	}
	defer response.Body.Close()
	decoder := json.NewDecoder(response.Body)
	if response.StatusCode >= http.StatusBadRequest {
		var failure struct{ Error string }
		_ = decoder.Decode(&failure)
		return fmt.Errorf("asking the lab to %s %s: %s: %s", method, path, response.Status, failure.Error)
	}
	if answer == nil {
		return nil
	}
	if err := decoder.Decode(answer); err != nil {
		return fmt.Errorf("asking the lab to %s %s: %w", method, path, err)
	}
	return nil
}
