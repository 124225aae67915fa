package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// result is what a scenario has shown.
type result struct {
	Scenario string            `json:"scenario"`
	Title    string            `json:"title"`
	Replicas int               `json:"replicas"` // of each workload
	Held     bool              `json:"-"`
	Drainers []summary         `json:"drainers"`
	Ratios   map[string]ratios `json:"ratios"` // of Fairway to another drainer, by its name
	Trials   []trial           `json:"trials"`
}

// summary of the trials of a drainer: medians, with the extremes where they matter.
type summary struct {
	Drainer        string  `json:"drainer"`
	Trials         int     `json:"trials"`
	Seconds        spread  `json:"seconds"`
	RequestsPerPod float64 `json:"requests_per_evicted_pod"`
	Refused        float64 `json:"refused"`
	LeastReady     int     `json:"least_ready"` // of all trials
	Reaction       *spread `json:"reaction_seconds,omitempty"`
}

type spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
}

type ratios struct {
	Seconds  float64 `json:"seconds"`
	Requests float64 `json:"requests"`
}

func (r *result) summarise(drainers []drainer) {
	of := map[string]summary{}
	for _, d := range drainers {
		own := slices.DeleteFunc(slices.Clone(r.Trials), func(t trial) bool { return t.Drainer != d.name })
		s := summary{
			Drainer: d.name, Trials: len(own),
			Seconds:        spreadOf(own, func(t trial) float64 { return t.Seconds }),
			RequestsPerPod: spreadOf(own, func(t trial) float64 { return float64(t.Requests) / float64(t.Evicted) }).Median,
			Refused:        spreadOf(own, func(t trial) float64 { return float64(t.Refused) }).Median,
			LeastReady:     slices.MinFunc(own, func(a, b trial) int { return cmp.Compare(a.LeastReady, b.LeastReady) }).LeastReady,
		}
		if r.Held {
			s.Reaction = new(spreadOf(own, func(t trial) float64 { return t.Reaction }))
		}
		r.Drainers = append(r.Drainers, s)
		of[d.name] = s
	}
	r.Ratios = map[string]ratios{}
	for _, other := range []string{"floor", "kubectl"} {
		r.Ratios[other] = ratios{
			Seconds:  of["fairway"].Seconds.Median / of[other].Seconds.Median,
			Requests: of["fairway"].RequestsPerPod / of[other].RequestsPerPod,
		}
	}
}

func spreadOf(trials []trial, value func(trial) float64) spread {
	values := make([]float64, len(trials))
	for i, t := range trials {
		values[i] = value(t)
	}
	slices.Sort(values)
	n := len(values)
	return spread{Median: (values[(n-1)/2] + values[n/2]) / 2, Least: values[0], Most: values[n-1]}
}

func (r *result) print(out io.Writer) {
	load := spreadOf(r.Trials, func(t trial) float64 { return t.Load })
	fmt.Fprintf(out, "\n%s: %s\nload average %.1f [%.1f-%.1f] on %d CPUs\n", r.Scenario, r.Title, load.Median, load.Least, load.Most, runtime.NumCPU())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, "drainer\ttrials\twall s\trequests/pod\t429\tleast ready")
	if r.Held {
		fmt.Fprint(table, "\treaction s")
	}
	fmt.Fprintln(table)
	for _, s := range r.Drainers {
		fmt.Fprintf(table, "%s\t%d\t%.1f [%.1f-%.1f]\t%.2f\t%.0f\t%d of %d", s.Drainer, s.Trials,
			s.Seconds.Median, s.Seconds.Least, s.Seconds.Most, s.RequestsPerPod, s.Refused, s.LeastReady, r.Replicas)
		if r.Held {
			fmt.Fprintf(table, "\t%.3f [%.3f-%.3f]", s.Reaction.Median, s.Reaction.Least, s.Reaction.Most)
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush()
	for _, other := range []string{"floor", "kubectl"} {
		fmt.Fprintf(out, "fairway / %s: wall %.2f, requests %.2f\n", other, r.Ratios[other].Seconds, r.Ratios[other].Requests)
	}
}
