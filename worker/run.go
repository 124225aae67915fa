package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"

	"github.com/fairway-project/fairway/activities/aws"
	"github.com/fairway-project/fairway/activities/blocks"
	"github.com/fairway-project/fairway/activities/clusters"
	"github.com/fairway-project/fairway/activities/fleet"
	"github.com/fairway-project/fairway/activities/kube"
	"github.com/fairway-project/fairway/activities/notify"
	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// run works until the context ends.
func run(ctx context.Context, c config.Config) error {
	logger, err := newLogger(c.Worker.Log)
	if err != nil {
		return &usageError{err}
	}
	defer func() { _ = logger.Sync() }()

	if err := awaitRegistry(ctx, c.Clusters, logger); err != nil {
		return ignoreStop(ctx, &usageError{err})
	}
	mirror, err := c.Repository.Open(ctx)
	if err != nil {
		return ignoreStop(ctx, &usageError{err})
	}
	driver, err := c.Forge.Open(c.Repository)
	if err != nil {
		return &usageError{err}
	}
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return &usageError{fmt.Errorf("reading Temporal's settings: %w", err)}
	}
	options.Logger = log.NewStructuredLogger(slog.New(zapslog.NewHandler(logger.Core(), zapslog.AddStacktraceAt(slog.LevelError+1))))
	if options.MetricsHandler, err = newMetrics(logger); err != nil {
		return err
	}

	health := &health{}
	stopServing, err := serve(c.Worker.Listen, health, logger)
	if err != nil {
		return &usageError{err}
	}
	defer stopServing()

	temporal, err := connect(ctx, options, logger)
	if err != nil {
		return ignoreStop(ctx, err)
	}
	defer temporal.Close()
	if err := checkSearchAttributes(ctx, temporal, options.Namespace); err != nil {
		return ignoreStop(ctx, err)
	}

	w := worker.New(temporal, c.TaskQueue, worker.Options{
		WorkerStopTimeout:            c.Worker.StopWithin,
		MaxHeartbeatThrottleInterval: maxHeartbeatThrottle,
		DisableRegistrationAliasing:  true,
		DeploymentOptions: worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: c.Worker.Deployment, BuildID: version},
			// A roll may take days. It moves on to the next version, which must be able to replay
			// it, instead of keeping every old version alive that long (docs/decisions/0003).
			DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
		},
		OnFatalError: func(err error) { logger.Error("the worker cannot go on", zap.Error(err)) },
	})
	reached := register(w, c, temporal)
	registerUpdates(w, c, mirror, reached)
	registerPromotions(w, c, temporal, mirror, driver, reached.blocks)
	registerPromoteWorkflows(w)
	registerTests(w, c, mirror, driver, reached, logger)
	from := sourceOf(mirror)
	if mirror != nil {
		from.Landings = landingsOf(mirror, c.Pipeline, driver)
	}
	registerChannels(w, c, temporal, from)
	if err := w.Start(); err != nil {
		return fmt.Errorf("starting the worker: %w", err)
	}
	logger.Info("working", zap.String("version", version), zap.String("task_queue", c.TaskQueue),
		zap.String("temporal", options.HostPort), zap.String("namespace", options.Namespace), zap.String("listen", c.Worker.Listen))
	if c.Worker.Promote {
		if err := promote(ctx, temporal, c.Worker.Deployment); err != nil {
			w.Stop()
			return ignoreStop(ctx, err)
		}
		logger.Info("this version is the current one of its deployment", zap.String("deployment", c.Worker.Deployment), zap.String("version", version))
	}
	if err := startActors(ctx, temporal, c); err != nil {
		w.Stop()
		return ignoreStop(ctx, err)
	}
	if err := startSync(ctx, temporal, c, from, logger); err != nil {
		w.Stop()
		return ignoreStop(ctx, err)
	}
	health.ready(temporal)

	<-ctx.Done()
	logger.Info("stopping; what is under way is handed over", zap.Duration("within", c.Worker.StopWithin))
	health.stopping()
	w.Stop()
	logger.Info("stopped")
	return nil
}

// maxHeartbeatThrottle bounds how long a cancellation takes to reach an activity.
const maxHeartbeatThrottle = 2 * time.Second

// register names what this worker can do about the nodes of clusters. Activities are registered under
// the names of the methods of the interfaces in package workflows.
func register(w worker.Registry, c config.Config, temporal client.Client) outside {
	w.RegisterWorkflow(workflows.RollPool)
	w.RegisterWorkflow(workflows.ReplaceNode)
	w.RegisterWorkflow(workflows.Cluster)
	w.RegisterWorkflow(workflows.Fleet)

	conduct := conductOf(c)
	windowed := func(cluster registry.Cluster) (bool, error) {
		settings, err := conduct.Update(cluster)
		return settings.Windowed, err
	}
	known := &clusters.Activities{
		Read: c.Clusters, Write: c.Registry.WriteStatus, Settings: conduct.Roll, Windowed: windowed, Notify: c.Notify.Configured(),
	}
	w.RegisterActivity(known.ListClusters)
	w.RegisterActivity(known.FindPool)
	hook := &notify.Activities{Settings: c.Notify, Find: known.Find, Quiet: known.OfTest}
	w.RegisterActivity(hook)
	w.RegisterActivity(&fleet.Activities{Temporal: temporal, TaskQueue: c.TaskQueue})
	accounts := &aws.Accounts{Find: known.Find, Settings: c.AWS}
	leases := leaseTests(c, known, accounts)
	o := outside{
		temporal: temporal, clusters: known, accounts: accounts, blocks: blocks.NewAsker(temporal, channelOf(known.Find)), leases: leases,
		kube: &kube.Clusters{Find: known.Find, Settings: c.Kubernetes, AWS: accounts.Access},
	}
	o.blocks.Apart = known.OfTest
	w.RegisterActivity(&kube.Activities{Clusters: o.kube, Settings: c.Replace, Drain: c.Drain, Blocks: o.blocks, Notify: hook.Notify})
	w.RegisterActivity(&aws.Activities{Accounts: accounts, Blocks: o.blocks, ReadyWithin: c.Replace.NodeReadyWithin})
	return o
}

func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil // told to stop while starting: that is no failure
	}
	return err
}

func newLogger(settings config.Log) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(settings.Level)
	if err != nil {
		return nil, fmt.Errorf("worker.log.level: %w", err)
	}
	c := zap.NewProductionConfig()
	if settings.Format == "console" {
		c = zap.NewDevelopmentConfig()
	}
	c.Level = zap.NewAtomicLevelAt(level)
	c.Sampling = nil // a line that is missing is the one that was needed
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	c.DisableStacktrace = true
	c.DisableCaller = true
	return c.Build()
}

func newMetrics(logger *zap.Logger) (client.MetricsHandler, error) {
	exporter, err := prometheus.New()
	if err != nil {
		return nil, fmt.Errorf("setting up metrics: %w", err)
	}
	return opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
		Meter:                metric.NewMeterProvider(metric.WithReader(exporter)).Meter("fairway"),
		OnError:              func(err error) { logger.Warn("a metric was not recorded", zap.Error(err)) },
		UseMonotonicCounters: true,
	}), nil
}

// connect dials Temporal until it answers: a worker may well start before it.
func connect(ctx context.Context, options client.Options, logger *zap.Logger) (client.Client, error) {
	for {
		temporal, err := client.DialContext(ctx, options)
		if err == nil {
			return temporal, nil
		}
		logger.Warn("Temporal does not answer; trying again", zap.String("address", options.HostPort), zap.Error(err))
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// checkSearchAttributes refuses a namespace in which workflows could not say what they work on.
func checkSearchAttributes(ctx context.Context, temporal client.Client, namespace string) error {
	known, err := temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return fmt.Errorf("reading the search attributes of namespace %s: %w", namespace, err)
	}
	var missing []error
	for _, attribute := range workflows.SearchAttributes {
		if kind := attribute.GetValueType(); known.CustomAttributes[attribute.GetName()] != kind {
			missing = append(missing, fmt.Errorf("namespace %s has no search attribute %s of type %s: temporal operator search-attribute create --namespace %s --name %s --type %s",
				namespace, attribute.GetName(), kind, namespace, attribute.GetName(), kind))
		}
	}
	return errors.Join(missing...)
}

// promote makes this worker's version the current one of its deployment. Temporal knows the
// version only after the worker's first poll, hence the patience.
func promote(ctx context.Context, temporal client.Client, deployment string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	handle := temporal.WorkerDeploymentClient().GetHandle(deployment)
	for {
		_, err := handle.SetCurrentVersion(ctx, client.WorkerDeploymentSetCurrentVersionOptions{BuildID: version, IgnoreMissingTaskQueues: true})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("making version %s the current one of deployment %s: %w", version, deployment, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
