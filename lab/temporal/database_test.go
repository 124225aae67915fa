package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	persistencespb "go.temporal.io/server/api/persistence/v1"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/persistence"
)

func TestEveryStartRegistersWhatIsMissing(t *testing.T) {
	o := testOptions(t)
	o.searchAttributes = map[string]enumspb.IndexedValueType{"Cluster": enumspb.INDEXED_VALUE_TYPE_KEYWORD}
	prepare(t, o)
	first := readNamespace(t, o)
	if got := first.Config.Retention.AsDuration(); got != o.retention {
		t.Errorf("retention of a new namespace: got %s, want %s", got, o.retention)
	}

	o.retention = 240 * time.Hour
	o.searchAttributes["Blocked"] = enumspb.INDEXED_VALUE_TYPE_BOOL
	o.searchAttributes["Pool"] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	prepare(t, o)
	second := readNamespace(t, o)
	if second.Info.Id != first.Info.Id {
		t.Errorf("the namespace was made anew")
	}
	if got := second.Config.Retention.AsDuration(); got != o.retention {
		t.Errorf("retention of an existing namespace: got %s, want %s", got, o.retention)
	}
	got := slices.Sorted(maps.Values(second.Config.CustomSearchAttributeAliases))
	if want := []string{"Blocked", "Cluster", "Pool"}; !slices.Equal(got, want) {
		t.Errorf("search attributes: got %v, want %v", got, want)
	}
	for column, name := range first.Config.CustomSearchAttributeAliases {
		if now := second.Config.CustomSearchAttributeAliases[column]; now != name {
			t.Errorf("%s moved away from column %s, which is now %q", name, column, now)
		}
	}

	prepare(t, o)
	if third := readNamespace(t, o); third.ConfigVersion != second.ConfigVersion {
		t.Errorf("a start without changes rewrote the namespace")
	}
}

func TestSearchAttributeOfAnotherTypeIsRefused(t *testing.T) {
	o := testOptions(t)
	o.searchAttributes = map[string]enumspb.IndexedValueType{"Blocked": enumspb.INDEXED_VALUE_TYPE_KEYWORD}
	prepare(t, o)
	o.searchAttributes = map[string]enumspb.IndexedValueType{"Blocked": enumspb.INDEXED_VALUE_TYPE_BOOL}
	err := prepareDatabase(t.Context(), o, log.NewNoopLogger())
	if err == nil || !strings.Contains(err.Error(), "Blocked is Keyword there, not Bool") {
		t.Errorf("got error %v", err)
	}
}

func TestTooManySearchAttributesOfATypeAreRefused(t *testing.T) {
	o := testOptions(t)
	for _, name := range []string{"A", "B", "C", "D"} {
		o.searchAttributes[name] = enumspb.INDEXED_VALUE_TYPE_BOOL
	}
	err := prepareDatabase(t.Context(), o, log.NewNoopLogger())
	if err == nil || !strings.Contains(err.Error(), "no column of type Bool is left") {
		t.Errorf("got error %v", err)
	}
}

func TestUnfinishedDatabaseOfAKilledStartIsMadeAnew(t *testing.T) {
	o := testOptions(t)
	if err := os.WriteFile(o.database+".new", []byte("half a schema"), 0o644); err != nil {
		t.Fatal(err)
	}
	prepare(t, o)
	readNamespace(t, o)
}

func testOptions(t *testing.T) options {
	return options{
		database:         filepath.Join(t.TempDir(), "temporal.db"),
		namespace:        "fairway",
		retention:        720 * time.Hour,
		searchAttributes: map[string]enumspb.IndexedValueType{},
	}
}

func prepare(t *testing.T, o options) {
	t.Helper()
	if err := prepareDatabase(t.Context(), o, log.NewNoopLogger()); err != nil {
		t.Fatal(err)
	}
}

func readNamespace(t *testing.T, o options) *persistencespb.NamespaceDetail {
	t.Helper()
	namespaces, err := openNamespaces(o.database, log.NewNoopLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer namespaces.Close()
	found, err := namespaces.GetNamespace(t.Context(), &persistence.GetNamespaceRequest{Name: o.namespace})
	if err != nil {
		t.Fatal(err)
	}
	return found.Namespace
}
