package testsuites

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/joshdk/go-junit"
)

// Limits of JUnit files: whoever wrote them is a stranger.
const (
	mostJUnitFiles = 200
	mostJUnitBytes = 16 << 20 // of one file
	mostJUnitDepth = 12
	mostCases      = 50000
)

// parseJUnit reads the cases of one JUnit file, without those that were skipped.
func parseJUnit(data []byte) ([]testCase, error) {
	if err := bound(data); err != nil {
		return nil, err
	}
	suites, err := junit.Ingest(data)
	if err != nil {
		return nil, fmt.Errorf("it is no JUnit file: %w", err)
	}
	var cases []testCase
	for _, suite := range suites {
		cases = append(cases, casesOf(suite)...)
	}
	return cases, nil
}

// bound refuses files that would take the library too much memory: it copies the content of each element once for
// each element around it.
func bound(data []byte) error {
	if len(data) > mostJUnitBytes {
		return fmt.Errorf("it is longer than %d MiB", mostJUnitBytes>>20)
	}
	depth, elements := 0, 0
	for decoder := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := decoder.RawToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is no XML: %w", err)
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
			elements++
		case xml.EndElement:
			depth--
		}
		if depth > mostJUnitDepth || elements > 10*mostCases {
			return errors.New("it has too many elements, or too many within each other")
		}
	}
}

func casesOf(suite junit.Suite) []testCase {
	var cases []testCase
	for _, test := range suite.Tests {
		if test.Status == junit.StatusSkipped {
			continue
		}
		c := testCase{name: nameOf(test), failed: test.Status != junit.StatusPassed}
		c.setup = setupNode.MatchString(test.Name)
		if c.failed {
			c.message = test.Message
			if test.Error != nil && strings.TrimSpace(c.message) == "" {
				c.message = test.Error.Error()
			}
		}
		cases = append(cases, c)
	}
	for _, inner := range suite.Suites {
		cases = append(cases, casesOf(inner)...)
	}
	return cases
}

// Ginkgo reports what it does around the cases as if these were cases as well.
var setupNode = regexp.MustCompile(`^\[(Synchronized|Report)?(Before|After)Suite\]|^\[DeferCleanup \(Suite\)\]`)

// nameOf is a case's name for people. Ginkgo's names say all; others are unique within their class only.
func nameOf(test junit.Test) string {
	if name, ginkgo := strings.CutPrefix(test.Name, "[It] "); ginkgo {
		return name
	}
	if test.Classname == "" || setupNode.MatchString(test.Name) {
		return test.Name
	}
	return test.Classname + "." + test.Name
}

// mergeJUnit reads the cases of several files.
func mergeJUnit(files []file) (cases []testCase, problem string) {
	if len(files) > mostJUnitFiles {
		return nil, fmt.Sprintf("It wrote more than %d JUnit files.", mostJUnitFiles)
	}
	for _, f := range files {
		found, err := parseJUnit(f.data)
		if err != nil {
			return cases, fmt.Sprintf("Its JUnit file %s cannot be read: %s.", f.name, cut(err.Error()))
		}
		if cases = append(cases, found...); len(cases) > mostCases {
			return cases[:mostCases], fmt.Sprintf("It has more than %d cases.", mostCases)
		}
	}
	return cases, ""
}

// judge says what came of a process that has ended with a status, from its JUnit files.
func judge(files []file, status error) outcome {
	if len(files) == 0 {
		c := testCase{name: "exit status"}
		if status != nil {
			c.failed, c.message = true, "It ended with "+status.Error()+"."
		}
		return outcome{cases: []testCase{c}}
	}
	o := outcome{}
	o.cases, o.problem = mergeJUnit(files)
	ran, failed := 0, 0
	for _, c := range o.cases {
		if !c.setup {
			ran++
		}
		if c.failed {
			failed++
		}
	}
	switch {
	case o.problem != "":
	case failed == 0 && status != nil:
		o.problem = fmt.Sprintf("It ended with %v, although no case has failed.", status)
	case failed == 0 && ran == 0:
		o.problem = "None of its cases ran."
	}
	return o
}
