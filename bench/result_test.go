package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/lab"
)

var drainers = []drainer{{name: "fairway", agent: "fairway"}, {name: "kubectl", agent: "kubectl/"}, {name: "floor", agent: "floor"}}

func TestRequestsOfADrainAreThoseOfItsUserAgentWhileItRan(t *testing.T) {
	began := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	request := func(agent string, second float64) lab.AuditEvent {
		return lab.AuditEvent{UserAgent: agent, Received: began.Add(time.Duration(second * float64(time.Second)))}
	}
	eviction := func(agent string, second float64, code int) lab.AuditEvent {
		e := request(agent, second)
		e.Verb, e.Resource, e.Subresource, e.Code = "create", "pods", "eviction", code
		return e
	}
	audit := lab.Audit{
		request("kubectl/v1.36.3 (linux/amd64)", -1), // another drain of it
		request("kubectl/v1.36.3 (linux/amd64)", 0),
		eviction("kubectl/v1.36.3 (linux/amd64)", 1, 429),
		eviction("kubectl/v1.36.3 (linux/amd64)", 7.5, 201),
		eviction("fairway", 2, 201),
		request("kubectl/v1.36.3 (linux/amd64)", 11),
	}
	drain := trial{Drainer: "kubectl", began: began, ended: began.Add(10 * time.Second), released: began.Add(6 * time.Second)}
	drain.count(audit, drainers)
	require.Equal(t, []int{3, 1, 1}, []int{drain.Requests, drain.Evicted, drain.Refused})
	require.Equal(t, 1.5, drain.Reaction)
}

func TestDrainersAreComparedByTheirMedians(t *testing.T) {
	r := result{Trials: []trial{
		{Drainer: "fairway", Seconds: 2, Requests: 12, Evicted: 10, LeastReady: 8},
		{Drainer: "fairway", Seconds: 3, Requests: 10, Evicted: 10, LeastReady: 9},
		{Drainer: "fairway", Seconds: 9, Requests: 11, Evicted: 10, LeastReady: 7},
		{Drainer: "kubectl", Seconds: 5, Requests: 22, Evicted: 10},
		{Drainer: "kubectl", Seconds: 7, Requests: 22, Evicted: 10},
		{Drainer: "floor", Seconds: 2.5, Requests: 10, Evicted: 10},
	}}
	r.summarise(drainers)
	require.Equal(t, summary{Drainer: "fairway", Trials: 3, Seconds: spread{Median: 3, Least: 2, Most: 9}, RequestsPerPod: 1.1, LeastReady: 7}, r.Drainers[0])
	require.Equal(t, map[string]ratios{"kubectl": {Seconds: 0.5, Requests: 0.5}, "floor": {Seconds: 1.2, Requests: 1.1}}, r.Ratios)
}
