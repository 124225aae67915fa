package main

import (
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/workflows"
)

// What the worker carries out has to be replayable by the next one, which package workflows tests.
func TestEveryWorkflowOfTheWorkerIsRecorded(t *testing.T) {
	var named names
	c := config.Config{}
	registerUpdates(&named, c, nil, register(&named, c, nil))
	registerChannels(&named, c, nil, source{})
	registerPromoteWorkflows(&named)
	registerTests(&named, c, nil, nil, outside{}, nil)
	var all names
	for _, workflow := range workflows.All() {
		all.RegisterWorkflow(workflow)
	}
	require.ElementsMatch(t, all.workflows, named.workflows)
	for _, workflow := range named.workflows {
		files, err := filepath.Glob("../workflows/testdata/histories/" + strings.ToLower(workflow) + "-*.json.gz")
		require.NoError(t, err)
		require.NotEmpty(t, files, "%s has no recording: see tests/record/record.mk", workflow)
	}
}

// names keeps what is registered.
type names struct {
	worker.Registry
	workflows []string
}

func (n *names) RegisterWorkflow(workflow any) {
	name := runtime.FuncForPC(reflect.ValueOf(workflow).Pointer()).Name()
	n.workflows = append(n.workflows, name[strings.LastIndex(name, ".")+1:])
}

func (*names) RegisterActivity(any) {}
