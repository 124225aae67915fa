package main

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
)

func TestOptionsHaveDefaults(t *testing.T) {
	o, err := parseOptions([]string{"--db", filepath.Join(t.TempDir(), "temporal.db"), "--search-attribute", "Cluster=Keyword", "--search-attribute", "Blocked=Bool"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.namespace != "fairway" || o.retention != 30*24*time.Hour || o.port == o.uiPort {
		t.Errorf("got %+v", o)
	}
	if o.searchAttributes["Cluster"] != enumspb.INDEXED_VALUE_TYPE_KEYWORD || o.searchAttributes["Blocked"] != enumspb.INDEXED_VALUE_TYPE_BOOL {
		t.Errorf("got search attributes %v", o.searchAttributes)
	}
}

func TestWrongOptionsAreNamedInTheError(t *testing.T) {
	database := filepath.Join(t.TempDir(), "temporal.db")
	for _, test := range []struct {
		arguments, want string
	}{
		{"", "--db is missing"},
		{"--db " + database + "/none/temporal.db", "make its directory first"},
		{"--db " + database + " --port 0", "--port 0"},
		{"--db " + database + " --ui-port 70000", "--ui-port 70000"},
		{"--db " + database + " --port 7000 --ui-port 7000", "both 7000"},
		{"--db " + database + " --namespace=", "--namespace is empty"},
		{"--db " + database + " --retention 59m", "--retention 59m0s"},
		{"--db " + database + " --retention soon", `"soon" for flag -retention`},
		{"--db " + database + " --log-level loud", `--log-level "loud"`},
		{"--db " + database + " --search-attribute Cluster", "want NAME=TYPE"},
		{"--db " + database + " --search-attribute Cluster=String", `unknown type "String"`},
		{"--db " + database + " --search-attribute WorkflowId=Keyword", "one of Temporal's own names"},
		{"--db " + database + " --search-attribute A=Bool --search-attribute A=Int", "A was Bool before"},
		{"--db " + database + " serve", `unexpected argument "serve"`},
		{"--port 0 --retention 1s", "--db is missing: name the SQLite file\n--port 0: must be between 1 and 65535\n--retention 1s"},
	} {
		_, err := parseOptions(strings.Fields(test.arguments), io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error %v, want one with %q", test.arguments, err, test.want)
		}
	}
}
