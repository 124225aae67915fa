package main

import (
	"regexp"
	"strings"
)

// shortVersion is a version as people tell versions apart: the beginnings of its commit and hash.
func shortVersion(version string) string {
	commit, hash, qualified := strings.Cut(version, "#")
	if !qualified {
		return shortCommit(version)
	}
	return shortCommit(commit) + "#" + hash[:min(len(hash), 8)]
}

// wholeVersions are versions as they are told to programs.
var wholeVersions = regexp.MustCompile(`\b[0-9a-f]{40}(#[0-9a-f]+)?\b`)

// problemText is what went wrong in a cluster, for a line that names the cluster already: what is
// repeated, and the ends of versions, would leave no room for the cause.
func problemText(cluster, problem string) string {
	return wholeVersions.ReplaceAllStringFunc(strings.TrimPrefix(problem, "cluster "+cluster+": "), shortVersion)
}

func shortCommit(commit string) string { return commit[:min(len(commit), 8)] }

// commitOf is the commit of a version.
func commitOf(version string) string {
	commit, _, _ := strings.Cut(version, "#")
	return commit
}
