package workflows

import "go.temporal.io/sdk/workflow"

// hear has each signal of a name done as the selector receives it. One that is no T, such as one that
// somebody has sent by hand, is logged by the SDK and left out.
func hear[T any](ctx workflow.Context, selector workflow.Selector, name string, do func(T)) {
	selector.AddReceive(workflow.GetSignalChannel(ctx, name), func(channel workflow.ReceiveChannel, _ bool) {
		var said T
		// Receive would wait for the next one after a signal that is no T, and keep all others waiting.
		if channel.ReceiveAsync(&said) {
			do(said)
		}
	})
}
