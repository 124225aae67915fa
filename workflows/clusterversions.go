package workflows

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/rollout"
)

// Due says which update is to begin now, if one is. Otherwise it says when to look again; zero means
// when something has changed.
func (s ClusterState) Due(now time.Time) (in *UpdateClusterInput, again time.Time) {
	u := s.Updates
	kind, version := u.target()
	if kind == "" || u.Running != nil || u.held(kind) || (u.Asked == nil && kind != Decommission && u.Current == version && !u.blames(kind, version)) {
		return nil, time.Time{}
	}
	if holding := s.Holding(now, ""); len(holding) > 0 {
		for _, b := range holding {
			if b.Until.IsZero() {
				return nil, time.Time{}
			}
			if b.Until.After(again) {
				again = b.Until
			}
		}
		return nil, again
	}
	input := UpdateClusterInput{Cluster: s.Cluster, Kind: kind, Version: version, From: cmp.Or(u.Current, oldest(u.Mixed)), Last: u.Last, Added: u.Added, Attempt: 1}
	input.Fix = u.mends(version)
	if f := u.Failed; f != nil && f.Kind == kind && f.Version == version {
		if u.Asked == nil && (f.Next.IsZero() || now.Before(f.Next)) {
			return nil, f.Next
		}
		input.Attempt = f.Attempts + 1
	}
	if u.Failed != nil {
		input.Problems = u.Failed.Problems
	}
	switch {
	case kind == Rollback:
		input.By, input.Reason = u.Pinned.By, u.Pinned.Reason
	case u.Asked != nil:
		input.By, input.Reason, input.Fix = cmp.Or(u.Asked.By, nobody), u.Asked.Reason, input.Fix || u.Asked.Fix
	}
	return &input, time.Time{}
}

// mends says whether an update skips the look at the cluster's health because Fairway itself has left the
// cluster as it is: the one that takes up again what was left halfway, and whatever follows a failure that
// has changed something, because a broken commit is mostly mended by the next one. One that was superseded
// has broken nothing that is known of, so what comes instead of it has to find the cluster well; unless its
// workloads were not ready yet: what they wait for in vain may be what the next one mends.
func (u ClusterUpdates) mends(version string) bool {
	return len(u.Mixed) > 0 && (!u.Sound || u.Mixed[len(u.Mixed)-1] == version)
}

// target is the update that leads to what is wanted; none if nothing is.
func (u ClusterUpdates) target() (kind UpdateKind, version string) {
	switch {
	case u.Want == nil || u.Want.Lifecycle == registry.Decommissioned:
		return "", ""
	case u.Want.Lifecycle == registry.DecommissionRequested:
		return Decommission, u.Want.Version
	case u.Want.Lifecycle == registry.Requested:
		return Provision, u.Want.Version
	case u.Pinned != nil:
		return Rollback, u.Pinned.Version
	}
	return Upgrade, u.Want.Version
}

// held says whether the channel has not let the cluster go on yet, and nobody else has.
func (u ClusterUpdates) held(kind UpdateKind) bool {
	return u.Want.Hold && u.Asked == nil && (kind == Upgrade || kind == Provision)
}

// blames says whether the registry still shows problems with another version, although the cluster has
// the one that is wanted: an update to that finds nothing to do, and says that all is well.
func (u ClusterUpdates) blames(kind UpdateKind, version string) bool {
	return u.Failed != nil && (u.Failed.Version != version || u.Failed.Kind != kind)
}

// outdated says whether the running update is to end because something else is wanted.
func (u ClusterUpdates) outdated() bool {
	kind, version := u.target()
	r := u.Running
	if r == nil || r.Superseded || kind == "" {
		return false
	}
	if kind == Decommission || r.Kind == Decommission { // each ends the other at once, whatever the waves say
		return kind != r.Kind
	}
	// An item that blocks makes another version too, which must not begin before it is gone.
	return version != r.Version && !u.held(kind) && (kind != Upgrade || u.Want.Block == "")
}

// done takes over what a successful update has made of the cluster.
func (u *ClusterUpdates) done(o UpdateOutcome) {
	before := cmp.Or(u.Current, oldest(u.Mixed))
	u.Mixed, u.Sound, u.Failed, u.Added = nil, false, nil, nil
	if o.Kind == Decommission {
		u.Current, u.Last, u.Pinned = "", cmp.Or(before, u.Last), nil
		if u.Want != nil {
			u.Want.Lifecycle = registry.Decommissioned
		}
		return
	}
	if before != "" && before != o.Version {
		u.Last = before
	}
	u.Current = o.Version
	if u.Want != nil && u.Want.Lifecycle == registry.Requested {
		u.Want.Lifecycle = registry.Ready
	}
}

// undone takes over what an update has left that did not get to its end.
func (u *ClusterUpdates) undone(o UpdateOutcome, now time.Time) {
	before := cmp.Or(u.Current, oldest(u.Mixed))
	if o.Workflow != "" { // one that ended without a word knows nothing
		u.Added = o.Added
	}
	if o.Changed {
		u.Sound = o.Phase == "superseded" && !o.Unready && o.Kind != Decommission && (u.Sound || len(u.Mixed) == 0)
	}
	switch {
	case o.Restored:
		u.Current, u.Mixed = before, nil
	case !o.Changed || before == "":
	case o.Kind == Decommission: // a part of it is gone
		u.Mixed, u.Current = []string{before}, ""
	case before != o.Version && o.Version != "":
		mixed := append([]string{before}, slices.DeleteFunc(slices.Clone(u.Mixed), func(v string) bool { return v == before || v == o.Version })...)
		u.Mixed, u.Current = append(mixed, o.Version), ""
	}
	if o.Phase == "superseded" {
		return
	}
	failed := FailedUpdate{Kind: o.Kind, Version: o.Version, Problem: "cancelled", Problems: o.Problems, Attempts: 1, At: now}
	if len(o.Problems) > 0 {
		failed.Problem = o.Problems[0].Title
	}
	if f := u.Failed; f != nil && f.Kind == o.Kind && f.Version == o.Version {
		failed.Attempts = f.Attempts + 1
	}
	if o.Phase != "cancelled" && !o.Restored && (o.Workflow == "" || !byPerson(o.Problems)) { // without a word, it was no decision
		failed.Next = now.Add(u.pause(failed.Attempts))
	}
	u.Failed = &failed
}

// byPerson says whether a person has stopped a part of the update, by the problems that it had.
func byPerson(problems []registry.Problem) bool {
	return slices.ContainsFunc(problems, func(p registry.Problem) bool { return p.Type == "urn:fairway:"+Stopped })
}

// pause is the time until a failed update is tried again.
func (u ClusterUpdates) pause(attempts int) time.Duration {
	if u.Want == nil {
		return pauseAfter(attempts, 0, 0)
	}
	return pauseAfter(attempts, u.Want.RetryAfter, u.Want.RetryAtMost)
}

// Waits between failed attempts, where nothing is configured.
const (
	retryAfter  = 5 * time.Minute
	retryAtMost = 2 * time.Hour
)

func pauseAfter(attempts int, after, atMost time.Duration) time.Duration {
	pause, most := cmp.Or(after, retryAfter), cmp.Or(atMost, retryAtMost)
	for ; attempts > 1 && pause < most; attempts-- {
		pause *= 2
	}
	return min(pause, most)
}

// gone says whether the last update has decommissioned the cluster.
func (u ClusterUpdates) gone() bool {
	if len(u.History) == 0 {
		return false
	}
	last := u.History[len(u.History)-1]
	return last.Kind == Decommission && last.Phase == "done"
}

// before is the version that a rollback goes to by default: never the one that a person has gone back
// from, however often they ask.
func (u ClusterUpdates) before() string {
	pinned := u.Pinned
	switch {
	case pinned != nil && u.Current != pinned.Version:
		return pinned.Version // it has not got there yet
	case pinned != nil && u.Last == pinned.Not:
		for _, version := range u.had() {
			if version != u.Current && version != pinned.Not {
				return version
			}
		}
		return ""
	case u.Running != nil || len(u.Mixed) > 0:
		return cmp.Or(u.Current, oldest(u.Mixed))
	}
	return u.Last
}

// had are the versions that the cluster has had, the newest first.
func (u ClusterUpdates) had() (versions []string) {
	add := func(version string) {
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	add(u.Current)
	add(oldest(u.Mixed))
	add(u.Last)
	for _, past := range slices.Backward(u.History) {
		if past.Phase == "done" && past.Kind != Decommission {
			add(past.Version)
		}
		add(past.From)
	}
	return versions
}

func oldest(versions []string) string {
	if len(versions) == 0 {
		return ""
	}
	return versions[0]
}

func newest(versions []string) string {
	if len(versions) == 0 {
		return ""
	}
	return versions[len(versions)-1]
}

// Standing is where the cluster stands on the way to the wanted version, and what is wrong. That a
// person went back from it is a failure too: it is no version for others.
func (u ClusterUpdates) Standing() (state rollout.State, problem string) {
	if u.Want == nil {
		return rollout.Waiting, ""
	}
	switch version := u.Want.Version; {
	case u.Want.Lifecycle == registry.Decommissioned:
		return rollout.Done, ""
	case u.Pinned != nil && u.Pinned.Not == version:
		return rollout.Failed, fmt.Sprintf("%s went back from it to %s: %s", u.Pinned.By, short(u.Pinned.Version), u.Pinned.Reason)
	case u.Running != nil && u.Running.Version == version:
		return rollout.Updating, ""
	case u.Current == version:
		return rollout.Done, ""
	case u.Failed != nil && u.Failed.Version == version:
		return rollout.Failed, u.Failed.Problem
	case u.Want.Hold:
		return rollout.Waiting, ""
	}
	return rollout.Allowed, ""
}

// broken is why an update has failed that has left the cluster between versions; empty if none has.
func (u ClusterUpdates) broken() string {
	if len(u.Mixed) == 0 || u.Failed == nil {
		return ""
	}
	return cmp.Or(clip(u.Failed.Problem, mostProblem), "nobody knows why")
}

// String says for people where the versions of the cluster stand; nothing before any is wanted.
func (u ClusterUpdates) String() string {
	if u.Want == nil {
		return ""
	}
	has := "has version `" + cmp.Or(u.Current, "unknown") + "`"
	if len(u.Mixed) > 0 {
		has = "is between the versions `" + strings.Join(u.Mixed, "`, `") + "`"
	}
	text := fmt.Sprintf("\n\nIt %s. Channel `%s` wants `%s`", has, u.Want.Channel, u.Want.Version)
	if u.Want.Hold {
		text += ", but has not let it go on yet"
	}
	text += "."
	if p := u.Pinned; p != nil {
		text += fmt.Sprintf(" %s went back to `%s`, where it stays until another version is wanted than `%s`: %s.", p.By, p.Version, p.Not, p.Reason)
	}
	if r := u.Running; r != nil {
		text += fmt.Sprintf(" **%s** to `%s` since %s.", r.Kind, r.Version, r.Since.UTC().Format(time.RFC3339))
	}
	if f := u.Failed; f != nil {
		next := "it is not tried again by itself"
		if !f.Next.IsZero() {
			next = "it is tried again at " + f.Next.UTC().Format(time.RFC3339)
		}
		text += fmt.Sprintf(" Version `%s` failed %d times, last at %s, and %s: %s", f.Version, f.Attempts, f.At.UTC().Format(time.RFC3339), next, f.Problem)
	}
	return text
}
