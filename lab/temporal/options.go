package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/searchattribute/sadefs"
)

type options struct {
	database         string
	port             int
	uiPort           int
	namespace        string
	retention        time.Duration
	searchAttributes map[string]enumspb.IndexedValueType
	logLevel         string
}

var logLevels = []string{"debug", "info", "warn", "error"}

// parseOptions reads the command line; its error names every flag that is wrong.
func parseOptions(arguments []string, out io.Writer) (options, error) {
	o := options{searchAttributes: map[string]enumspb.IndexedValueType{}}
	flags := flag.NewFlagSet("temporal-lab", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.database, "db", "", "SQLite `file` that holds all state; made when it does not exist (required)")
	flags.IntVar(&o.port, "port", 7233, "`port` of the gRPC frontend on 127.0.0.1")
	flags.IntVar(&o.uiPort, "ui-port", 8233, "`port` of the Web UI on 127.0.0.1")
	flags.StringVar(&o.namespace, "namespace", "fairway", "namespace to register, by `name`")
	flags.DurationVar(&o.retention, "retention", 720*time.Hour, "`time` for which the histories of ended workflows are kept")
	flags.Func("search-attribute", "search attribute to register, as `NAME=TYPE`, for example Cluster=Keyword; may be repeated", o.addSearchAttribute)
	flags.StringVar(&o.logLevel, "log-level", "warn", "`level` of the server's log: "+strings.Join(logLevels, ", "))
	if err := flags.Parse(arguments); err != nil {
		return options{}, err
	}
	return o, o.validate(flags.Args())
}

func (o *options) addSearchAttribute(text string) error {
	name, typeName, found := strings.Cut(text, "=")
	valueType, err := enumspb.IndexedValueTypeFromString(typeName)
	switch {
	case !found || name == "":
		return errors.New("want NAME=TYPE")
	case err != nil || valueType == enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED:
		return fmt.Errorf("unknown type %q: use Keyword, KeywordList, Text, Int, Double, Bool or Datetime", typeName)
	case sadefs.IsReserved(name):
		return fmt.Errorf("%s is one of Temporal's own names: choose another", name)
	}
	if earlier, ok := o.searchAttributes[name]; ok && earlier != valueType {
		return fmt.Errorf("%s was %s before: give it once", name, earlier)
	}
	o.searchAttributes[name] = valueType
	return nil
}

func (o *options) validate(rest []string) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(rest) > 0 {
		wrong("unexpected argument %q: everything is given by flags", rest[0])
	}
	if o.database == "" {
		wrong("--db is missing: name the SQLite file")
	} else if info, err := os.Stat(filepath.Dir(o.database)); err != nil || !info.IsDir() {
		wrong("--db %s: make its directory first", o.database)
	}
	if o.port < 1 || o.port > 65535 {
		wrong("--port %d: must be between 1 and 65535", o.port)
	}
	if o.uiPort < 1 || o.uiPort > 65535 {
		wrong("--ui-port %d: must be between 1 and 65535", o.uiPort)
	}
	if o.port == o.uiPort {
		wrong("--port and --ui-port are both %d: choose two ports", o.port)
	}
	if o.namespace == "" {
		wrong("--namespace is empty: name one")
	}
	if o.retention < time.Hour {
		wrong("--retention %s: the server keeps histories for 1h at least", o.retention)
	}
	if !slices.Contains(logLevels, o.logLevel) {
		wrong("--log-level %q: must be one of %s", o.logLevel, strings.Join(logLevels, ", "))
	}
	return errors.Join(errs...)
}
