package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
)

const (
	// criticalAlerts is what no healthy cluster has.
	criticalAlerts = `ALERTS{alertstate="firing",severity="critical"}`
	// alertsWithin bounds the question; alertsSize the answer in bytes.
	alertsWithin = 10 * time.Second
	alertsSize   = 4 << 20
	// alertsLimit is how many series are named.
	alertsLimit = 20
)

// checkAlerts asks a Prometheus. A question without an answer is a problem too: nobody knows whether
// the cluster is healthy then.
func checkAlerts(ctx context.Context, cluster registry.Cluster, settings config.Alerts, found *complaints) error {
	series, err := askAlerts(ctx, cluster, settings)
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	if err != nil {
		found.add("Alerts could not be asked for: %v.", strings.TrimSuffix(err.Error(), "."))
		return nil
	}
	for i, one := range series {
		if i == alertsLimit {
			found.add("%d more alerts are firing.", len(series)-alertsLimit)
			break
		}
		found.add("%s", describe(one.Metric))
	}
	return nil
}

func askAlerts(ctx context.Context, cluster registry.Cluster, settings config.Alerts) (model.Vector, error) {
	token, err := bearerToken(settings)
	if err != nil {
		return nil, err
	}
	fill := func(text string) string { return strings.ReplaceAll(text, "{cluster}", cluster.ID) }
	client, err := api.NewClient(api.Config{
		Address: fill(settings.URL),
		Client: &http.Client{
			Transport: bearer{token},
			Timeout:   alertsWithin,
			// Whoever the answer points at shall not get the token.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, err
	}
	value, _, _, err := prometheus.NewAPI(client).Query(ctx, fill(cmp.Or(settings.Query, criticalAlerts)), time.Now())
	if err != nil {
		return nil, err
	}
	series, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("update.alerts.query: its result is a %s; must be an instant vector, in which each series is a problem", value.Type())
	}
	return series, nil
}

func bearerToken(settings config.Alerts) (string, error) {
	switch {
	case settings.TokenEnv != "":
		token := strings.TrimSpace(os.Getenv(settings.TokenEnv))
		if token == "" {
			return "", fmt.Errorf("update.alerts.token_env: the environment variable %s is empty", settings.TokenEnv)
		}
		return token, nil
	case settings.TokenFile != "":
		token, err := os.ReadFile(settings.TokenFile)
		if err != nil {
			return "", fmt.Errorf("update.alerts.token_file: %w", err)
		}
		if len(strings.TrimSpace(string(token))) == 0 {
			return "", fmt.Errorf("update.alerts.token_file: %s is empty", settings.TokenFile)
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
		response.Body = &boundedBody{response.Body, alertsSize}
	}
	return response, err
}

// boundedBody is a body that is refused when it is too long, not cut off.
type boundedBody struct {
	io.ReadCloser
	left int
}

var errTooLong = errors.New("the answer is too long")

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// describe tells of a series in a sentence.
func describe(metric model.Metric) string {
	name, labels := metric["alertname"], metric.Clone()
	delete(labels, "alertname")
	delete(labels, "alertstate")
	delete(labels, model.MetricNameLabel)
	if name == "" {
		return fmt.Sprintf("The query for alerts has the result %s.", metric)
	}
	if len(labels) == 0 {
		return fmt.Sprintf("Alert %s is firing.", name)
	}
	return fmt.Sprintf("Alert %s is firing: %s.", name, labels)
}
