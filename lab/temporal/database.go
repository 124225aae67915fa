package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	persistencespb "go.temporal.io/server/api/persistence/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence"
	"go.temporal.io/server/common/persistence/serialization"
	"go.temporal.io/server/common/persistence/sql"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/common/searchattribute/sadefs"
	"go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// databaseConfig opens the file with a write-ahead log: what was committed outlives kill -9. It
// need not outlive the machine, and syncing would cost two megabytes of disk writes a workflow.
func databaseConfig(file string) config.SQL {
	return config.SQL{
		PluginName:        sqliteplugin.PluginName,
		DatabaseName:      file,
		ConnectAttributes: map[string]string{"mode": "rw", "journal_mode": "wal", "synchronous": "off"},
	}
}

// prepareDatabase makes the file if there is none and brings its namespace up to the options.
// It does so before the server starts, whose caches would need seconds to notice a change.
func prepareDatabase(ctx context.Context, options options, logger log.Logger) error {
	if _, err := os.Stat(options.database); errors.Is(err, fs.ErrNotExist) {
		if err := createDatabase(options.database); err != nil {
			return fmt.Errorf("creating %s: %w", options.database, err)
		}
	} else if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if err := prepareNamespace(ctx, options, logger); err != nil {
		return fmt.Errorf("registering namespace %s in %s: %w", options.namespace, options.database, err)
	}
	return nil
}

// createDatabase works under another name until it is done, so that a kill in between leaves
// no half of a schema behind.
func createDatabase(file string) error {
	unfinished := file + ".new"
	if err := os.Remove(unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := sqlite.SetupSchema(&config.SQL{
		PluginName:        sqliteplugin.PluginName,
		DatabaseName:      unfinished,
		ConnectAttributes: map[string]string{"mode": "rwc"},
	})
	if err != nil {
		return err
	}
	return os.Rename(unfinished, file)
}

// prepareNamespace registers the namespace, or gives an existing one the wanted retention and
// the search attributes it lacks. Attributes that are no longer asked for stay.
func prepareNamespace(ctx context.Context, options options, logger log.Logger) error {
	namespaces, err := openNamespaces(options.database, logger)
	if err != nil {
		return err
	}
	defer namespaces.Close()
	found, err := namespaces.GetNamespace(ctx, &persistence.GetNamespaceRequest{Name: options.namespace})
	if _, missing := errors.AsType[*serviceerror.NamespaceNotFound](err); missing {
		fresh, err := sqlite.NewNamespaceConfig(clusterName, options.namespace, false, nil)
		if err != nil {
			return err
		}
		if err := configure(fresh.Detail.Config, options); err != nil {
			return err
		}
		_, err = namespaces.CreateNamespace(ctx, &persistence.CreateNamespaceRequest{Namespace: fresh.Detail})
		return err
	}
	if err != nil {
		return err
	}

	before := proto.Clone(found.Namespace.Config)
	if err := configure(found.Namespace.Config, options); err != nil {
		return err
	}
	if proto.Equal(before, found.Namespace.Config) {
		return nil
	}
	metadata, err := namespaces.GetMetadata(ctx)
	if err != nil {
		return err
	}
	found.Namespace.ConfigVersion++
	return namespaces.UpdateNamespace(ctx, &persistence.UpdateNamespaceRequest{
		Namespace:           found.Namespace,
		IsGlobalNamespace:   found.IsGlobalNamespace,
		NotificationVersion: metadata.NotificationVersion,
	})
}

func openNamespaces(file string, logger log.Logger) (persistence.MetadataManager, error) {
	serializer := serialization.NewSerializer()
	factory := sql.NewFactory(databaseConfig(file), resolver.NewNoopResolver(), clusterName, logger, metrics.NoopMetricsHandler, serializer)
	store, err := factory.NewMetadataStore()
	if err != nil {
		return nil, err
	}
	return persistence.NewMetadataManagerImpl(store, serializer, logger, clusterName), nil
}

func configure(namespace *persistencespb.NamespaceConfig, options options) error {
	namespace.Retention = durationpb.New(options.retention)
	fields, err := assignFields(namespace.CustomSearchAttributeAliases, options.searchAttributes)
	if err != nil {
		return err
	}
	namespace.CustomSearchAttributeAliases = fields
	return nil
}

// assignFields finds a column for every wanted search attribute. The visibility table has a fixed
// number of columns a type, and a namespace's attributes are names for some of them.
func assignFields(taken map[string]string, wanted map[string]enumspb.IndexedValueType) (map[string]string, error) {
	types := sadefs.GetDBIndexSearchAttributes(nil).CustomSearchAttributes
	columns := slices.Sorted(maps.Keys(types))
	names := map[string]string{}
	columnOf := map[string]string{}
	for column, name := range taken {
		names[column], columnOf[name] = name, column
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		want := wanted[name]
		if column, ok := columnOf[name]; ok {
			if types[column] != want {
				return nil, fmt.Errorf("search attribute %s is %s there, not %s: choose another name or remove the file",
					name, types[column], want)
			}
			continue
		}
		free := slices.IndexFunc(columns, func(column string) bool { return types[column] == want && names[column] == "" })
		if free < 0 {
			return nil, fmt.Errorf("search attribute %s: no column of type %s is left", name, want)
		}
		names[columns[free]] = name
	}
	return names, nil
}
