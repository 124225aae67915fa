package forge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

const (
	mostBody    = 16 << 20 // of an answer that is read
	mostRefusal = 64 << 10 // of one that refuses
	mostText    = 500      // of what a forge says, in an error

	// Without a word of how long, GitHub asks to wait a minute at least; none of its limits lasts longer than an hour.
	limitByDefault = time.Minute
	mostLimit      = time.Hour
)

// transport is what both drivers send their requests with. It turns whatever is not a success into an
// error of this package, so that the drivers and the libraries that they use need not look at it.
type transport struct {
	base  http.RoundTripper
	api   *url.URL // the only host that requests, and the token, go to
	token func() (string, error)

	mu sync.Mutex
	// limited is the last limit that the forge has set. While it lasts nothing is sent: a client
	// that goes on asking may be shut out.
	limited *LimitedError
}

// newTransport returns the transport for an API; without a token whoever uses it sees to that.
func newTransport(api *url.URL, token func() (string, error)) *transport {
	return &transport{base: http.DefaultTransport, api: api, token: token}
}

// newClient returns a client that follows redirects to the API's own host only, and only with the same request.
func newClient(with http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport: with,
		Timeout:   timeout,
		CheckRedirect: func(to *http.Request, via []*http.Request) error {
			first := via[0]
			switch {
			case to.URL.Scheme != first.URL.Scheme || to.URL.Host != first.URL.Host:
				return fmt.Errorf("it redirects to %s, which is not followed", to.URL.Host)
			case to.Method != first.Method:
				return errors.New("it redirects a request that changes something")
			case len(via) >= 3:
				return errors.New("it redirects again and again")
			}
			return nil
		},
	}
}

// RoundTrip sends a request. Errors are those of this package, or of the network.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.send(request)
	if err != nil && request.Body != nil {
		request.Body.Close()
	}
	return response, err
}

func (t *transport) send(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme != t.api.Scheme || request.URL.Host != t.api.Host {
		return nil, fmt.Errorf("no request goes to %s", request.URL.Host)
	}
	if err := t.limit(time.Now()); err != nil {
		return nil, err
	}
	if t.token != nil {
		token, err := t.token()
		if err != nil {
			return nil, &refusal{kind: ErrRefused, text: "reading the token: " + clean(err.Error())}
		}
		request = request.Clone(request.Context())
		if token = strings.TrimSpace(token); token != "" {
			request.Header.Set("Authorization", "token "+token)
		}
	}
	response, err := t.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 400 {
		t.watch(response, time.Now())
		response.Body = &boundedBody{ReadCloser: response.Body, left: mostBody}
		return response, nil
	}
	defer response.Body.Close()
	_, secret, _ := strings.Cut(request.Header.Get("Authorization"), " ")
	refused := refusalOf(response, secret)
	if until := limitOf(response, refused.text, time.Now()); !until.IsZero() {
		refused.kind = ErrUnreachable
		t.mu.Lock()
		defer t.mu.Unlock()
		t.limited = &LimitedError{Until: until, Err: refused}
		return nil, t.limited
	}
	return nil, refused
}

// limit returns the limit that holds now.
func (t *transport) limit(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.limited == nil || !now.Before(t.limited.Until) {
		return nil
	}
	return t.limited
}

// watch notices that an answer was the last one for now.
func (t *transport) watch(response *http.Response, now time.Time) {
	if response.Header.Get("X-RateLimit-Remaining") != "0" {
		return
	}
	if until := resetOf(response, now); !until.IsZero() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.limited = &LimitedError{Until: until, Err: &refusal{kind: ErrUnreachable, text: "no requests are left until then"}}
	}
}

// limitOf says until when an answer asks to wait; zero if it does not.
func limitOf(response *http.Response, text string, now time.Time) time.Time {
	if response.StatusCode != http.StatusTooManyRequests && response.StatusCode != http.StatusForbidden {
		return time.Time{}
	}
	if value := response.Header.Get("Retry-After"); value != "" {
		if seconds, err := strconv.Atoi(value); err == nil {
			return within(now.Add(time.Duration(min(max(seconds, 1), 1e6))*time.Second), now)
		}
		if at, err := http.ParseTime(value); err == nil {
			return within(at, now)
		}
		return now.Add(limitByDefault)
	}
	if response.Header.Get("X-RateLimit-Remaining") == "0" {
		if until := resetOf(response, now); !until.IsZero() {
			return until
		}
		return now.Add(limitByDefault)
	}
	if response.StatusCode == http.StatusTooManyRequests || strings.Contains(strings.ToLower(text), "rate limit") {
		return now.Add(limitByDefault)
	}
	return time.Time{}
}

// resetOf is when requests are let through again; zero if the answer does not say it.
func resetOf(response *http.Response, now time.Time) time.Time {
	seconds, err := strconv.ParseInt(response.Header.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return time.Time{}
	}
	return within(time.Unix(seconds, 0), now)
}

// within believes no time that has passed, by clocks that differ, and none that is far away.
func within(until, now time.Time) time.Time {
	if until.Before(now.Add(time.Second)) {
		return now.Add(time.Second)
	}
	if most := now.Add(mostLimit); until.After(most) {
		return most
	}
	return until
}

// refusal is an answer that is no success.
type refusal struct {
	status int   // of HTTP; 0 if no answer was needed
	kind   error // one of those of this package
	text   string
}

func (r *refusal) Error() string {
	if r.status == 0 {
		return fmt.Sprintf("%v: %s", r.kind, r.text)
	}
	return fmt.Sprintf("%v: %s (HTTP %d)", r.kind, r.text, r.status)
}

func (r *refusal) Unwrap() error { return r.kind }

// refusalOf reads an answer that is no success.
func refusalOf(response *http.Response, secret string) *refusal {
	r := &refusal{status: response.StatusCode}
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusLocked, code == http.StatusUnavailableForLegalReasons:
		r.kind = ErrRefused
	case code == http.StatusNotFound, code == http.StatusGone:
		r.kind = ErrNotFound
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		r.kind = ErrUnreachable
	default:
		r.kind = ErrInvalid
	}
	data, _ := io.ReadAll(io.LimitReader(response.Body, mostRefusal)) // the status says enough without
	r.text = messageOf(data)
	if secret != "" {
		r.text = strings.ReplaceAll(r.text, secret, "***")
	}
	if r.text = clean(r.text); r.text == "" {
		r.text = http.StatusText(response.StatusCode)
	}
	return r
}

// messageOf is what an answer says, with the details of each field where GitHub gives some.
func messageOf(data []byte) string {
	var answer struct {
		Message string            `json:"message"`
		Errors  []json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(data, &answer) != nil {
		return string(data)
	}
	text := answer.Message
	for _, raw := range answer.Errors {
		var detail struct{ Resource, Field, Code, Message string }
		var plain string
		switch {
		case json.Unmarshal(raw, &plain) == nil:
		case json.Unmarshal(raw, &detail) != nil:
			continue
		case detail.Message != "":
			plain = detail.Message
		default:
			plain = strings.TrimSpace(detail.Resource + " " + detail.Field + " " + detail.Code)
		}
		text += "; " + plain
	}
	return strings.TrimPrefix(text, "; ")
}

// failure says what was being done when something failed, with an error of this package, unless the
// context has ended.
func failure(ctx context.Context, err error, doing string, args ...any) error {
	if err == nil {
		return nil
	}
	doing = fmt.Sprintf(doing, args...)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	var limited *LimitedError
	var refused *refusal
	switch {
	case errors.As(err, &limited):
		return fmt.Errorf("%s: %w", doing, limited)
	case errors.As(err, &refused):
		return fmt.Errorf("%s: %w", doing, refused)
	}
	// The library's words around it are about its own calls and addresses.
	var sending *url.Error
	if errors.As(err, &sending) {
		err = sending.Err
	}
	return fmt.Errorf("%s: %w", doing, &refusal{kind: ErrUnreachable, text: clean(err.Error())})
}

// clean makes one short line of what others have written.
func clean(text string) string {
	text = strings.ToValidUTF8(text, " ")
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
	return cut(text, mostText)
}

// cut shortens a text to at most so many bytes, at the end of a character.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}

// cutText shortens a text in markdown after a line, so that no code that it holds is left open.
func cutText(text string) string {
	if len(text) <= mostComment {
		return text
	}
	text = cut(text, mostComment)
	return text[:strings.LastIndexByte(text, '\n')+1] + "…"
}

// boundedBody fails where an answer goes on beyond what is read of one.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("its answer has more than %d MiB", mostBody>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
