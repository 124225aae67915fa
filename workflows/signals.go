package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"
)

// hear has each signal of a name done as the selector receives it. One that is no T, such as one that
// somebody has sent by hand, is logged and left out.
func hear[T any](ctx workflow.Context, selector workflow.Selector, name string, do func(T)) {
	hearAny(ctx, selector, name, func(said T, err error) {
		if err != nil {
			workflow.GetLogger(ctx).Error("a signal was not understood and is left out", "signal", name, "error", err)
			return
		}
		do(said)
	})
}

// hearAny is hear for what is not to be left out: the error says why a signal is no T.
func hearAny[T any](ctx workflow.Context, selector workflow.Selector, name string, do func(T, error)) {
	selector.AddReceive(workflow.GetSignalChannel(ctx, name), func(channel workflow.ReceiveChannel, _ bool) {
		// A T as such would have the SDK wait for the next signal after one that is none, and keep all others
		// waiting; or leave in the next one what it has read of the one that is none.
		var sent converter.RawValue
		if channel.ReceiveAsync(&sent) {
			do(decoded[T](sent))
		}
	})
}

// heardWord waits for a signal that carries a text, and stands for more than that: it is also heard with
// something else, as the text otherwise.
func heardWord(ctx workflow.Context, name, otherwise string) string {
	var sent converter.RawValue
	workflow.GetSignalChannel(ctx, name).Receive(ctx, &sent)
	word, err := decoded[string](sent)
	if err != nil {
		return otherwise
	}
	return word
}

// decoded is what was sent by a signal, the zero value if that is nothing or no T.
func decoded[T any](sent converter.RawValue) (T, error) {
	var said, none T
	if payload := sent.Payload(); payload != nil {
		if err := converter.GetDefaultDataConverter().FromPayload(payload, &said); err != nil {
			return none, err
		}
	}
	return said, nil
}
