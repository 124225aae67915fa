package promotions

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Bounds of texts of others, in characters.
const (
	longTitle  = 120
	longDetail = 300
)

// line is a text of others on one line, without what a terminal or a browser would obey, shortened.
func line(text string, most int) string {
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

// plain is a text of others for where there is no markup, such as titles and messages of commits: it
// mentions nobody there, and closes no issue.
func plain(text string, most int) string {
	return inert.ReplaceAllStringFunc(line(text, most), func(sign string) string {
		if sign == "://" {
			return ": //"
		}
		return sign + " "
	})
}

// code is a text of others in markdown: forges look for nothing in code.
func code(text string, most int) string {
	text = strings.ReplaceAll(line(text, most), "`", "'")
	if text == "" {
		return "(nothing)"
	}
	return "`" + text + "`"
}

// short is how people name a commit.
func short(commit string) string { return commit[:min(12, len(commit))] }

// counted is a number of things, such as "1 commit" or "2 commits".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// some names a few of many.
func some(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
