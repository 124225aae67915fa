package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairway-project/fairway/strictyaml"
)

// Client is a registry behind HTTP: `fairway registry serve`, or Zalando's cluster registry. It asks
// once and never again by itself. Errors are UnreachableError, RefusedError or AnswerError.
type Client struct {
	base    *url.URL
	token   func() (string, error)
	timeout time.Duration
	http    *http.Client

	mutex    sync.Mutex
	etag     string
	body     [sha256.Size]byte
	clusters Clusters // that etag and body stand for; nil if there are none yet
}

// NewClient returns a registry at base, such as https://registry.example.org. The bearer token is
// asked for with each request, so that it can be changed; nil means none. The timeout is for one
// request with its answer.
func NewClient(base string, token func() (string, error), timeout time.Duration) (*Client, error) {
	address, err := url.Parse(base)
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return nil, fmt.Errorf("the cluster registry's address is %q; must be a URL such as https://registry.example.org", base)
	}
	if address.User != nil || address.RawQuery != "" || address.Fragment != "" {
		return nil, fmt.Errorf("the cluster registry's address %s must be a URL without user, query and fragment", address.Redacted())
	}
	if token == nil {
		token = func() (string, error) { return "", nil }
	}
	return &Client{base: address, token: token, timeout: timeout, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// UnreachableError says that the registry did not answer, or said that it cannot at the moment. A
// later attempt may succeed.
type UnreachableError struct {
	Request string // such as "GET https://registry.example.org/kubernetes-clusters"
	Err     error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the cluster registry does not answer: %s: %v", e.Request, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError says that the registry does not want to do what it was asked for.
type RefusedError struct {
	Request string
	Status  int    // of HTTP
	Detail  string // what the registry says, shortened
}

func (e *RefusedError) Error() string {
	text := fmt.Sprintf("the cluster registry refuses: %s: HTTP status %d", e.Request, e.Status)
	switch e.Status {
	case http.StatusUnauthorized:
		text += "; check the token"
	case http.StatusForbidden:
		text += "; the token does not allow this"
	}
	if 300 <= e.Status && e.Status < 400 {
		text += "; redirects are not followed, correct the address"
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// AnswerError says that an answer makes no sense. Nothing of it is used.
type AnswerError struct {
	Request string
	Err     error // what is wrong with it, where possible with cluster and field
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("the cluster registry answers nonsense: %s: %s", e.Request, shortened(e.Err.Error(), 4000))
}

func (e *AnswerError) Unwrap() error { return e.Err }

const (
	maxList   = 64 << 20 // bytes; 150 clusters with 450 config items each take 4 MB
	maxAnswer = 4 << 20  // a request, which the entry grows by, has up to 1 MB
	// maxClusters keeps a short answer from becoming gigabytes of entries.
	maxClusters = 10_000
)

// Clusters implements Registry. The answer is checked by the same rules as a registry file; fields
// that Fairway does not know are left out. Nothing is decoded where nothing has changed.
func (c *Client) Clusters(ctx context.Context) (Clusters, error) {
	c.mutex.Lock()
	etag, known := c.etag, c.clusters
	c.mutex.Unlock()
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	answer, err := c.do(ctx, http.MethodGet, "/kubernetes-clusters", header, nil, maxList)
	if err != nil {
		return nil, err
	}
	if answer.status == http.StatusNotModified {
		if etag == "" {
			return nil, answer.nonsense("says that nothing has changed since nothing")
		}
		return slices.Clone(known), nil
	}
	if err := answer.expect(http.StatusOK); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(answer.body)
	c.mutex.Lock()
	if c.clusters != nil && c.body == sum {
		defer c.mutex.Unlock()
		c.etag = answer.etag
		return slices.Clone(c.clusters), nil
	}
	c.mutex.Unlock()
	clusters, err := decodeList(answer.body)
	if err != nil {
		return nil, &AnswerError{Request: answer.request, Err: err}
	}
	// That is what a registry says that was set up anew, or another one. People delete one at a time.
	if len(clusters) == 0 && len(known) > 1 {
		return nil, answer.nonsense("has lost all of %d clusters; where that is meant, restart the worker", len(known))
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.etag, c.body, c.clusters = answer.etag, sum, clusters
	return slices.Clone(clusters), nil
}

// WriteStatus implements Registry. Where the lifecycle status is to move on, the entry is read
// before: a registry other than Fairway's does not check that people want something else by now.
func (c *Client) WriteStatus(ctx context.Context, id string, status Status, lifecycle LifecycleStatus) error {
	if err := strictyaml.Validate("status of cluster "+id, &status); err != nil {
		return err
	}
	path := "/kubernetes-clusters/" + url.PathEscape(id)
	header := http.Header{}
	if lifecycle != "" {
		answer, err := c.do(ctx, http.MethodGet, path, nil, nil, maxAnswer)
		if err != nil {
			return err
		}
		if err := answer.expectCluster(id); err != nil {
			return err
		}
		now, err := decodeCluster(answer.body)
		if err != nil {
			return &AnswerError{Request: answer.request, Err: err}
		}
		if now.ID != id {
			return answer.nonsense("is about cluster %.100q", now.ID)
		}
		if err := now.checkMove(lifecycle); err != nil {
			return err
		}
		if answer.etag != "" {
			header.Set("If-Match", answer.etag)
		}
	}
	if status.Problems == nil {
		status.Problems = []Problem{} // what is left out of a patch may be taken for unchanged
	}
	body, err := json.Marshal(struct {
		Lifecycle LifecycleStatus `json:"lifecycle_status,omitempty"`
		Status    writtenStatus   `json:"status"`
	}{lifecycle, writtenStatus(status)})
	if err != nil {
		return err
	}
	answer, err := c.do(ctx, http.MethodPatch, path, header, body, maxAnswer)
	if err != nil {
		return err
	}
	return answer.expectCluster(id)
}

// writtenStatus is a status with all of its fields, the empty ones too.
type writtenStatus struct {
	CurrentVersion string    `json:"current_version"`
	LastVersion    string    `json:"last_version"`
	NextVersion    string    `json:"next_version"`
	Problems       []Problem `json:"problems"`
}

// answer is what came back for a request, as a whole.
type answer struct {
	request string
	status  int
	etag    string
	kind    string // media type
	body    []byte
}

func (c *Client) do(ctx context.Context, method, path string, header http.Header, body []byte, limit int64) (answer, error) {
	address := strings.TrimSuffix(c.base.String(), "/") + path
	out := answer{request: method + " " + address}
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer within %v", c.timeout))
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for key, values := range header {
		request.Header[key] = values
	}
	request.Header.Set("Accept", "application/json, application/problem+json")
	request.Header.Set("User-Agent", "fairway")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	token, err := c.token()
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, out.unreachable(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	out.body, err = io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return answer{}, out.unreachable(ctx, err)
	}
	out.status, out.etag = response.StatusCode, response.Header.Get("ETag")
	out.kind, _, _ = mime.ParseMediaType(response.Header.Get("Content-Type"))
	if int64(len(out.body)) > limit {
		return answer{}, out.nonsense("is longer than %d bytes", limit)
	}
	if out.status == http.StatusTooManyRequests || out.status >= 500 {
		return answer{}, &UnreachableError{Request: out.request, Err: fmt.Errorf("HTTP status %d%s", out.status, prefixed(": ", out.detail()))}
	}
	return out, nil
}

func (a answer) unreachable(ctx context.Context, err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err // the rest of its text is the request, once more
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return &UnreachableError{Request: a.request, Err: err}
}

func (a answer) nonsense(format string, args ...any) error {
	return &AnswerError{Request: a.request, Err: fmt.Errorf("the answer "+format, args...)}
}

func (a answer) expect(status int) error {
	switch {
	case a.status == status:
		return nil
	case a.status < 300:
		return a.nonsense("has HTTP status %d instead of %d", a.status, status)
	default:
		return &RefusedError{Request: a.request, Status: a.status, Detail: a.detail()}
	}
}

func (a answer) expectCluster(id string) error {
	if a.status == http.StatusNotFound && a.kind != "text/html" && a.kind != "text/plain" { // those come from what stands before it
		return &UnknownClusterError{Name: id}
	}
	return a.expect(http.StatusOK)
}

// detail is what a refusal says about itself, as RFC 7807 or as Zalando's registry has it.
func (a answer) detail() string {
	var problem struct{ Detail, Title, Message string }
	if json.Unmarshal(a.body, &problem) != nil {
		return ""
	}
	for _, text := range []string{problem.Detail, problem.Message, problem.Title} {
		if text != "" {
			return strconv.Quote(shortened(text, 400))
		}
	}
	return ""
}

// shortened keeps an error readable, and small enough for a workflow's history, whatever is in it.
func shortened(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// decodeList reads and checks the answer with all clusters.
func decodeList(body []byte) (Clusters, error) {
	var list struct {
		Items json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("it is no JSON object with a list: %w", err)
	}
	if len(list.Items) == 0 || string(list.Items) == "null" {
		return nil, errors.New("items: is missing")
	}
	items := json.NewDecoder(bytes.NewReader(list.Items))
	if start, err := items.Token(); err != nil || start != json.Delim('[') {
		return nil, errors.New("items: is no list")
	}
	d := document{Clusters: Clusters{}}
	for i := 0; items.More(); i++ {
		if i == maxClusters {
			return nil, fmt.Errorf("items: are more than %d", maxClusters)
		}
		var item json.RawMessage
		if err := items.Decode(&item); err != nil {
			return nil, err
		}
		c, err := decodeEntry(item)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(c, i), err)
		}
		d.Clusters = append(d.Clusters, c)
	}
	return d.checked()
}

func decodeCluster(body []byte) (Cluster, error) {
	c, err := decodeEntry(body)
	if err != nil {
		return Cluster{}, fmt.Errorf("%s: %w", nameOf(c, 0), err)
	}
	return c.Checked()
}

func decodeEntry(item []byte) (Cluster, error) {
	var c Cluster
	err := json.Unmarshal(item, &c)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return c, fmt.Errorf("%s: is a %s; must be of type %s", wrong.Field, wrong.Value, wrong.Type)
	}
	// Zalando's registry knows a status between these two; nothing is different for those who work on it.
	if c.LifecycleStatus == "creating" {
		c.LifecycleStatus = Requested
	}
	return c, err
}

// Checked returns the entry with its defaults, if it keeps to the rules of a registry file. The error
// names the cluster and each field.
func (c Cluster) Checked() (Cluster, error) {
	d := document{Clusters: Clusters{c}}
	d.Clusters[0].NodePools = slices.Clone(c.NodePools)
	if _, err := d.checked(); err != nil {
		return Cluster{}, err
	}
	return d.Clusters[0], nil
}

// checked applies the rules of a registry file and its defaults. Errors name clusters by their ids.
func (d *document) checked() (Clusters, error) {
	err := strictyaml.Validate("", d)
	if err == nil {
		d.setDefaults()
		return d.Clusters, nil
	}
	problems := strings.Split(err.Error(), "\n")
	more := len(problems) - maxProblems
	problems = problems[:min(len(problems), maxProblems)]
	for p := range problems {
		problems[p] = atCluster.ReplaceAllStringFunc(problems[p], func(at string) string {
			i, err := strconv.Atoi(atCluster.FindStringSubmatch(at)[1])
			if err != nil || i >= len(d.Clusters) {
				return at
			}
			return nameOf(d.Clusters[i], i) + ": "
		})
		problems[p] = shortened(problems[p], 300)
	}
	if more > 0 {
		problems = append(problems, fmt.Sprintf("and %d more", more))
	}
	return nil, errors.New(strings.Join(problems, "\n"))
}

const maxProblems = 20 // in an error

// atCluster is how a problem begins that has no file.
var atCluster = regexp.MustCompile(`^: clusters\[(\d+)\]\.?`)

func nameOf(c Cluster, index int) string {
	if c.ID == "" {
		return fmt.Sprintf("cluster number %d", index+1)
	}
	return fmt.Sprintf("cluster %.100q", c.ID)
}
