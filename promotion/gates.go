package promotion

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FleetGateName is the name of the gate that every edge has: the state of the clusters of its source.
const FleetGateName = "fleet"

// FleetGate says whether the clusters of a source channel are healthy and unblocked now.
func FleetGate(s Soak, now time.Time) GateResult {
	s = s.At(now)
	result := GateResult{Name: FleetGateName, Passed: len(s.Held) == 0, At: now}
	clusters := 0
	for _, running := range s.Running {
		clusters += running.Count
	}
	switch {
	case !result.Passed:
		result.Detail = fmt.Sprintf("The channel is not in order: %s.", strings.Join(s.Held, "; "))
	case clusters == 0:
		result.Detail = "No cluster follows the channel, and nothing is blocked."
	case clusters == 1:
		result.Detail = "The one cluster is healthy, and nothing is blocked."
	default:
		result.Detail = fmt.Sprintf("All %d clusters are healthy, and nothing is blocked.", clusters)
	}
	return result
}

// GateNames are the names of all gates of an edge, fleet first.
func (e Edge) GateNames() []string {
	names := []string{FleetGateName}
	for _, gate := range e.Gates {
		names = append(names, gate.Name)
	}
	return names
}

// CheckSkips refuses names of gates that the edge does not have.
func (e Edge) CheckSkips(names []string) error {
	for _, name := range names {
		if !slices.Contains(e.GateNames(), name) {
			return fmt.Errorf("the edge from %s to %s has no gate %.80q; there are %s", e.From, e.To, name, strings.Join(e.GateNames(), ", "))
		}
	}
	return nil
}

// Judge puts the results of gates together: one for each gate of the edge, in the order of GateNames, of
// which those in skip are marked as Skipped. A gate that has no result is not passed, nor is one with
// several of which one is not. The last value says why the edge is not open, in whole sentences; empty if it is.
func (e Edge) Judge(results []GateResult, skip []string) ([]GateResult, string) {
	var judged []GateResult
	var closed []string
	for _, name := range e.GateNames() {
		verdict := GateResult{Name: name, Detail: "It has not been asked."}
		for i, found := 0, false; i < len(results); i++ {
			if r := results[i]; r.Name == name && (!found || !r.Passed) {
				verdict, found = r, true
			}
		}
		verdict.Skipped = slices.Contains(skip, name)
		if !verdict.Passed && !verdict.Skipped {
			closed = append(closed, fmt.Sprintf("Gate %s is not passed: %s", name, verdict.Detail))
		}
		judged = append(judged, verdict)
	}
	return judged, strings.Join(closed, " ")
}
