package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-project/fairway/workflows"
)

// maxSize bounds a file, in bytes. A history that is longer says little more than a shorter one.
const maxSize = 200_000

// collection is a directory of gzipped histories, each of another shape.
type collection struct {
	dir    string
	shapes map[string]string // shape -> file
}

func readCollection(dir string) (collection, error) {
	c := collection{dir: dir, shapes: map[string]string{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.json.gz"))
	if err != nil {
		return c, err
	}
	for _, file := range files {
		history, err := readHistory(file)
		if err != nil {
			return c, fmt.Errorf("reading %s: %w", file, err)
		}
		c.shapes[shape(history)] = file
	}
	return c, nil
}

// add keeps a history in a file that is named <workflow>-<outcome>, with a number from the second
// one on, and returns the file. If the history's shape is there already, that file is returned.
func (c collection) add(workflow, outcome string, history *historypb.History) (string, error) {
	form := shape(history)
	if file, known := c.shapes[form]; known {
		return file, nil
	}
	if secret := secretIn(history); secret != "" {
		return "", fmt.Errorf("it contains the value of %s", secret)
	}
	data, err := compress(history)
	if err != nil {
		return "", err
	}
	if len(data) > maxSize {
		return "", fmt.Errorf("it has %d bytes; at most %d are kept", len(data), maxSize)
	}
	file, err := c.create(strings.ToLower(workflow) + "-" + outcome)
	if err != nil {
		return "", err
	}
	defer file.Close()
	if _, err := file.Write(data); err != nil {
		return "", err
	}
	c.shapes[form] = file.Name()
	return file.Name(), file.Close()
}

func (c collection) create(name string) (*os.File, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	for number := 1; ; number++ {
		suffix := ""
		if number > 1 {
			suffix = fmt.Sprintf("-%d", number)
		}
		file, err := os.OpenFile(filepath.Join(c.dir, name+suffix+".json.gz"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if !os.IsExist(err) {
			return file, err
		}
	}
}

// secretIn names the environment variable whose secret value a history contains; empty if none is.
func secretIn(history *historypb.History) string {
	plain, err := proto.Marshal(history) // payloads are base64 in JSON
	if err != nil {
		return err.Error()
	}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if (strings.Contains(name, "TOKEN") || strings.Contains(name, "SECRET")) && len(value) >= 16 && bytes.Contains(plain, []byte(value)) {
			return name
		}
	}
	return ""
}

// deleteOutdated deletes the files that the workflows of today do not replay.
func deleteOutdated(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json.gz"))
	if err != nil {
		return err
	}
	for _, file := range files {
		history, err := readHistory(file)
		if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		replayer := worker.NewWorkflowReplayer()
		for _, workflow := range workflows.All() {
			replayer.RegisterWorkflow(workflow)
		}
		if err := replayer.ReplayWorkflowHistory(nil, history); err != nil {
			fmt.Printf("%s is deleted: %v\n", file, err)
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// shape is what a history says about the workflow's code: the commands that it gave, in their
// order. Two histories of one shape replay alike. Actors never close and do the same few things
// again and again, as does every run that grew too long, so there it counts what they did at all, and
// not in which order.
func shape(history *historypb.History) string {
	var form []string
	for _, event := range history.Events {
		switch event.EventType {
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
			started := event.GetWorkflowExecutionStartedEventAttributes()
			form = append(form, started.WorkflowType.Name)
			if kind := kindOf(started.Input); kind != "" {
				form = append(form, kind)
			}
			if started.ContinuedExecutionRunId != "" {
				form = append(form, "follows another run")
			}
		case enums.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
			form = append(form, event.GetActivityTaskScheduledEventAttributes().ActivityType.Name)
		case enums.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED:
			form = append(form, event.GetStartChildWorkflowExecutionInitiatedEventAttributes().WorkflowType.Name)
		case enums.EVENT_TYPE_MARKER_RECORDED:
			form = append(form, event.GetMarkerRecordedEventAttributes().MarkerName)
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
			form = append(form, "signal "+event.GetWorkflowExecutionSignaledEventAttributes().SignalName)
		case enums.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
			form = append(form, "update "+event.GetWorkflowExecutionUpdateAcceptedEventAttributes().GetAcceptedRequest().GetInput().GetName())
		case enums.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, enums.EVENT_TYPE_WORKFLOW_TASK_STARTED, enums.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
			enums.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT, enums.EVENT_TYPE_WORKFLOW_TASK_FAILED, enums.EVENT_TYPE_ACTIVITY_TASK_STARTED:
			// These depend on workers and their luck.
		default:
			form = append(form, event.EventType.String())
		}
	}
	if len(form) > 0 && (slices.Contains(actors, form[0]) || form[len(form)-1] == enums.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW.String()) {
		slices.Sort(form)
		form = slices.Compact(form)
	}
	return strings.Join(form, "\n")
}

// kindOf is what an update is to do with its cluster: other code may give the same commands. Inputs of
// other workflows have none.
func kindOf(input *commonpb.Payloads) string {
	var in struct{ Kind string }
	if len(input.GetPayloads()) == 0 || json.Unmarshal(input.Payloads[0].Data, &in) != nil {
		return ""
	}
	return in.Kind
}

func readHistory(name string) (*historypb.History, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	return client.HistoryFromJSON(content, client.HistoryJSONOptions{})
}

func compress(history *historypb.History) ([]byte, error) {
	text, err := temporalproto.CustomJSONMarshalOptions{}.Marshal(history)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	zipper, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := zipper.Write(text); err != nil {
		return nil, err
	}
	if err := zipper.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
