package fleet

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
)

// interposer is a proxy that can be told to answer in the server's place.
type interposer struct {
	*httptest.Server
	mu      sync.Mutex
	instead http.HandlerFunc // nil lets requests through
	seen    int              // requests since instead was set
}

func newInterposer(upstream string) (*interposer, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	i := &interposer{}
	through := httputil.NewSingleHostReverseProxy(target)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		instead := i.instead
		i.seen++
		i.mu.Unlock()
		if instead != nil {
			instead(w, r)
			return
		}
		through.ServeHTTP(w, r)
	}))
	return i, nil
}

// answer has the given handler answer from now on; nil lets requests through again.
func (i *interposer) answer(instead http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.instead, i.seen = instead, 0
}

// asked counts the requests since the last answer.
func (i *interposer) asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.seen
}
