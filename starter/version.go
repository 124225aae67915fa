package main

import "strings"

// shortVersion is a version as people tell versions apart: the beginnings of its commit and hash.
func shortVersion(version string) string {
	commit, hash, qualified := strings.Cut(version, "#")
	if !qualified {
		return shortCommit(version)
	}
	return shortCommit(commit) + "#" + hash[:min(len(hash), 8)]
}

func shortCommit(commit string) string { return commit[:min(len(commit), 8)] }

// commitOf is the commit of a version.
func commitOf(version string) string {
	commit, _, _ := strings.Cut(version, "#")
	return commit
}
