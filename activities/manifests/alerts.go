package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/common/model"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/promql"
	"github.com/fairway-project/fairway/registry"
)

const (
	// criticalAlerts is what no healthy cluster has.
	criticalAlerts = `ALERTS{alertstate="firing",severity="critical"}`
	// alertsLimit is how many series are named.
	alertsLimit = 20
)

// checkAlerts asks a Prometheus. A question without an answer is a problem too: nobody knows whether
// the cluster is healthy then.
func checkAlerts(ctx context.Context, cluster registry.Cluster, settings config.Alerts, found *complaints) error {
	fill := func(text string) string { return strings.ReplaceAll(text, "{cluster}", cluster.ID) }
	source := promql.Source{URL: fill(settings.URL), TokenEnv: settings.TokenEnv, TokenFile: settings.TokenFile}
	series, err := source.Query(ctx, fill(cmp.Or(settings.Query, criticalAlerts)))
	if ctx.Err() != nil {
		return stopped(ctx)
	}
	if err != nil {
		if wrong := new(promql.FieldError); errors.As(err, &wrong) {
			err = fmt.Errorf("update.alerts.%w", err)
		}
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
