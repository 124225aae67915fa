package main

import (
	"go.temporal.io/sdk/worker"

	"github.com/fairway-project/fairway/workflows"
)

// registerPromoteWorkflows names the workflows that carry changes from one channel to the next.
func registerPromoteWorkflows(w worker.Registry) {
	w.RegisterWorkflow(workflows.ConsiderPromotion)
	w.RegisterWorkflow(workflows.Promote)
}
