// Package promql asks a Prometheus, or what answers like one, what it has measured: now, and over some
// time. Answers are not trusted: they are bounded, and what is incomplete is an error.
package promql

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const (
	// answerSize bounds an answer, in bytes.
	answerSize = 8 << 20
	// errorLength bounds what is told of an error, and of a series, in bytes.
	errorLength = 500
)

// Source is a Prometheus.
type Source struct {
	// URL is its address, without credentials; /api/v1 is below it.
	URL string
	// TokenEnv (an environment variable) or TokenFile hold a bearer token; it is read for each question.
	TokenEnv, TokenFile string
	// Timeout bounds a question; default 10 s.
	Timeout time.Duration
}

// FieldError means that what a caller was configured with is wrong.
type FieldError struct {
	// Field is "url", "token_env", "token_file" or "query", as in the configuration.
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// Query evaluates a query at the Prometheus' present time. The result must be an instant vector; it
// may be empty. An error is a FieldError if the configuration has to be changed. None has a token in it.
func (s Source) Query(ctx context.Context, query string) (model.Vector, error) {
	value, err := s.ask(ctx, func(ctx context.Context, p prometheus.API, timeout prometheus.Option) (model.Value, prometheus.Warnings, error) {
		value, warnings, _, err := p.Query(ctx, query, time.Time{}, timeout)
		return value, warnings, err
	})
	if err != nil {
		return nil, err
	}
	series, ok := value.(model.Vector)
	if !ok {
		return nil, &FieldError{"query", fmt.Sprintf("its result is a %s; must be an instant vector", value.Type())}
	}
	for _, one := range series {
		if one == nil {
			return nil, errNonsense
		}
	}
	return series, nil
}

// errNonsense is an answer that is JSON and yet none of a Prometheus.
var errNonsense = errors.New("the answer has no result in it; is this a Prometheus?")

type question func(context.Context, prometheus.API, prometheus.Option) (model.Value, prometheus.Warnings, error)

func (s Source) ask(ctx context.Context, question question) (model.Value, error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	timeout := cmp.Or(s.Timeout, 10*time.Second)
	client, err := api.NewClient(api.Config{
		Address: s.URL,
		Client: &http.Client{
			Transport: bearer{token},
			Timeout:   timeout,
			// Whoever the answer points at shall not get the token.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, &FieldError{"url", "is no address of a Prometheus"} // not shown, since it may hold a secret
	}
	value, warnings, err := question(ctx, prometheus.NewAPI(client), prometheus.WithTimeout(timeout))
	if err != nil {
		return nil, explain(err, token)
	}
	if value == nil {
		return nil, errNonsense
	}
	for _, warning := range warnings {
		// Before version 3 hints about the query's style came among the warnings.
		if !strings.HasPrefix(warning, "PromQL info") {
			return nil, fmt.Errorf("the answer may be incomplete: %s", tell(warning, token))
		}
	}
	return value, nil
}

// explain leaves out what may hold a secret: the address, and a token that an answer repeats.
func explain(err error, token string) error {
	var refused *prometheus.Error
	if errors.As(err, &refused) {
		if refused.Type == prometheus.ErrBadData {
			return &FieldError{"query", tell(refused.Msg, token)}
		}
		return errors.New(tell(string(refused.Type)+": "+refused.Msg, token))
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	if errors.Is(err, errTooLong) {
		return err
	}
	return errors.New(tell(err.Error(), token))
}

// tell quotes what an answer says.
func tell(text, token string) string {
	if token != "" {
		text = strings.ReplaceAll(text, token, "(token)")
	}
	return shorten(text)
}

func shorten(text string) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= errorLength {
		return text
	}
	return strings.ToValidUTF8(text[:errorLength], "") + " ..."
}

func (s Source) token() (string, error) {
	switch {
	case s.TokenEnv != "":
		token := strings.TrimSpace(os.Getenv(s.TokenEnv))
		if token == "" {
			return "", &FieldError{"token_env", fmt.Sprintf("the environment variable %s is empty", s.TokenEnv)}
		}
		return token, nil
	case s.TokenFile != "":
		token, err := os.ReadFile(s.TokenFile)
		if err != nil {
			return "", &FieldError{"token_file", err.Error()}
		}
		if len(strings.TrimSpace(string(token))) == 0 {
			return "", &FieldError{"token_file", s.TokenFile + " is empty"}
		}
		return strings.TrimSpace(string(token)), nil
	}
	return "", nil
}

// bearer adds a token to requests and bounds answers.
type bearer struct{ token string }

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	if b.token != "" {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+b.token)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err == nil {
		response.Body = &boundedBody{response.Body, answerSize}
	}
	return response, err
}

// boundedBody is a body that is refused when it is too long, not cut off.
type boundedBody struct {
	io.ReadCloser
	left int
}

var errTooLong = fmt.Errorf("the answer is too long: more than %d MiB; aggregate in the query", answerSize>>20)

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}
