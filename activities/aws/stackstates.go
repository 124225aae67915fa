package aws

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// step is what ApplyStack does next with a stack.
type step int

const (
	create  step = iota // a change set makes it
	update              // a change set changes it
	wait                // somebody changes it: look again afterwards
	replace             // its creation failed: delete what is left and create it
	refuse              // only a person can help
)

// nextStep says what to do with a stack of which this is the status, and why if that is not what
// people expect. docs/stacks.md has the same table for people.
func nextStep(status types.StackStatus) (todo step, why string) {
	switch status {
	case "", types.StackStatusDeleteComplete:
		return create, ""
	case types.StackStatusReviewInProgress:
		return create, "it is only a name: no change set of it has been executed"

	case types.StackStatusCreateComplete, types.StackStatusUpdateComplete, types.StackStatusImportComplete:
		return update, ""
	case types.StackStatusUpdateRollbackComplete:
		return update, "its last update failed and was undone"
	case types.StackStatusImportRollbackComplete:
		return update, "its last import failed and was undone"

	case types.StackStatusCreateInProgress, types.StackStatusRollbackInProgress,
		types.StackStatusUpdateInProgress, types.StackStatusUpdateCompleteCleanupInProgress,
		types.StackStatusUpdateRollbackInProgress, types.StackStatusUpdateRollbackCompleteCleanupInProgress,
		types.StackStatusImportInProgress, types.StackStatusImportRollbackInProgress,
		types.StackStatusDeleteInProgress:
		return wait, "somebody changes it"

	case types.StackStatusRollbackComplete, types.StackStatusRollbackFailed:
		return replace, "its creation failed, so that it can only be deleted and created again"

	case types.StackStatusUpdateRollbackFailed:
		return refuse, "its last update failed and could not be undone: mend what the events name, then `aws cloudformation continue-update-rollback`"
	case types.StackStatusCreateFailed:
		// Fairway has failed creations undone. What is in this one was kept on purpose, and may be in use.
		return refuse, "somebody had its creation stop at the failure: `aws cloudformation delete-stack` if nothing of it is needed"
	case types.StackStatusUpdateFailed:
		return refuse, "somebody had its last update stop at the failure: `aws cloudformation rollback-stack`"
	case types.StackStatusImportRollbackFailed:
		return refuse, "its last import failed and could not be undone: mend what the events name and import again"
	case types.StackStatusDeleteFailed:
		return refuse, "somebody has begun to delete it: delete what is left of it by hand, or let `fairway` decommission the cluster"
	default:
		return refuse, fmt.Sprintf("Fairway does not know the status %s", status)
	}
}
