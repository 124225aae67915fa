package main

import (
	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

// clusterName is what Temporal calls its own installation; it is kept in the database.
const clusterName = "active"

// settings differ from the server's defaults where the lab needs it. Worker deployments and
// standalone activities are on by default.
var settings = dynamicconfig.StaticClient{
	// The check asks a server on the internet.
	dynamicconfig.EnableServerVersionCheck.Key(): false,
	dynamicconfig.MatchingEnableFairness.Key():   true,

	// Load tests run against one server; its rate limits are not what they measure.
	dynamicconfig.FrontendRPS.Key():                                  20_000,
	dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           20_000,
	dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 1_000,
	dynamicconfig.HistoryRPS.Key():                                   20_000,
	dynamicconfig.MatchingRPS.Key():                                  20_000,

	// Long polls a call: a test may wait for thousands of workflows at once.
	dynamicconfig.FrontendMaxConcurrentLongRunningRequestsPerInstance.Key(): 10_000,

	// The default keeps 128 000 workflows in memory.
	dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 8_096,
}

// newServer configures all four of Temporal's services in this process. They know each other by
// static addresses, so nothing gossips and no port but theirs is opened.
func newServer(options options, logger log.Logger) (temporal.Server, error) {
	inner, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	services := map[string]config.Service{}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for name, port := range map[primitives.ServiceName]int{
		primitives.FrontendService: options.port,
		primitives.HistoryService:  inner[0],
		primitives.MatchingService: inner[1],
		primitives.WorkerService:   inner[2],
	} {
		services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: "127.0.0.1"}}
		hosts[name] = static.SingleLocalHost(loopback(port))
	}
	database := databaseConfig(options.database)
	return temporal.NewServer(
		temporal.WithConfig(&config.Config{
			Persistence: config.Persistence{
				DefaultStore:     database.PluginName,
				VisibilityStore:  database.PluginName,
				NumHistoryShards: 1,
				DataStores:       map[string]config.DataStore{database.PluginName: {SQL: &database}},
			},
			ClusterMetadata: &cluster.Config{
				FailoverVersionIncrement: 10,
				MasterClusterName:        clusterName,
				CurrentClusterName:       clusterName,
				ClusterInformation: map[string]cluster.ClusterInformation{
					clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: loopback(options.port)},
				},
			},
			DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
			Services:            services,
			PublicClient:        config.PublicClient{HostPort: loopback(options.port)},
			Archival: config.Archival{
				History:    config.HistoryArchival{State: "disabled"},
				Visibility: config.VisibilityArchival{State: "disabled"},
			},
			NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
				History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
				Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
			}},
		}),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithDynamicConfigClient(settings),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
	)
}

func newUI(options options) *uiserver.Server {
	return uiserver.NewServer(server_options.WithConfigProvider(&uiconfig.Config{
		Host:                "127.0.0.1",
		Port:                options.uiPort,
		TemporalGRPCAddress: loopback(options.port),
		DefaultNamespace:    options.namespace,
		EnableUI:            true,
		HideLogs:            true,
		// Neither news nor new versions are fetched: the lab works without the internet.
		DisableNewsFetch: true,
		// Browsers drop secure cookies that come over plain HTTP.
		CORS: uiconfig.CORS{CookieInsecure: true},
	}))
}
