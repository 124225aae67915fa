// Package prose puts what others have written into texts for people, so that neither terminals nor browsers nor
// forges obey it.
package prose

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Bounds of texts of others, in characters.
const (
	Title  = 120
	Detail = 300
)

// Line is a text of others on one line, without what a terminal or a browser would obey, shortened.
func Line(text string, most int) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, " "))), " ")
	if runes := []rune(text); len(runes) > most {
		text = strings.TrimSpace(string(runes[:most])) + " ..."
	}
	return text
}

// inert are the signs by which forges find people, issues and, on Gitea, pull requests in a text.
var inert = regexp.MustCompile(`[@#]|!\b|(?i:gh-)|://`)

// Plain is a text of others for where there is no markup, such as titles and messages of commits: it
// mentions nobody there, and closes no issue.
func Plain(text string, most int) string {
	return inert.ReplaceAllStringFunc(Line(text, most), func(sign string) string {
		if sign == "://" {
			return ": //"
		}
		return sign + " "
	})
}

// Code is a text of others in markdown: forges look for nothing in code.
func Code(text string, most int) string {
	text = strings.ReplaceAll(Line(text, most), "`", "'")
	if text == "" {
		return "(nothing)"
	}
	return "`" + text + "`"
}

// Short is how people name a commit.
func Short(commit string) string { return commit[:min(12, len(commit))] }

// Counted is a number of things, such as "1 commit" or "2 commits".
func Counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Some names a few of many.
func Some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// BadName says why a text cannot be a name that forges and people are shown; empty if it can.
func BadName(text string) string {
	switch {
	case strings.TrimSpace(text) == "":
		return "must not be empty"
	case strings.TrimSpace(text) != text:
		return "must not begin or end with spaces"
	case len(text) > 200:
		return "must have at most 200 bytes"
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return "must hold nothing but printable characters"
	}
	return ""
}
