package strictyaml

import (
	"errors"
	"fmt"
	"io"

	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

// Bounds of what the parser is given. Its time grows with the square of both, and it goes one call
// deeper with each level.
const (
	maxNesting   = 100 // of brackets, braces and list entries in each other
	maxDocuments = 100 // of which all but one are empty
)

// scan cuts the input into tokens, and stops where it goes beyond the bounds.
func scan(name string, data []byte) (token.Tokens, error) {
	var s scanner.Scanner
	s.Init(string(data))
	var tokens token.Tokens
	var b bounds
	for {
		found, err := s.Scan()
		if errors.Is(err, io.EOF) {
			return tokens, nil
		}
		for _, each := range found {
			if wrong := b.exceeds(each); wrong != "" {
				return nil, Problem{File: name, Line: each.Position.Line, Text: wrong}
			}
		}
		tokens.Add(found...)
	}
}

// bounds counts what is open at a token.
type bounds struct {
	flow      int // brackets and braces
	entries   int // "- " and "? " one after another in a line; on lines of their own they need space
	line      int
	documents int
}

func (b *bounds) exceeds(t *token.Token) string {
	entry := t.Type == token.SequenceEntryType || t.Type == token.MappingKeyType
	if !entry || t.Position.Line != b.line {
		b.entries, b.line = 0, t.Position.Line
	}
	switch {
	case entry:
		b.entries++
	case t.Type == token.SequenceStartType || t.Type == token.MappingStartType:
		b.flow++
	case t.Type == token.SequenceEndType || t.Type == token.MappingEndType:
		b.flow--
	case t.Type == token.DocumentHeaderType || t.Type == token.DocumentEndType:
		b.documents++
	}
	switch {
	case max(b.flow, b.entries) > maxNesting:
		return fmt.Sprintf("is nested more than %d deep", maxNesting)
	case b.documents > maxDocuments:
		return fmt.Sprintf("holds more than %d YAML documents; exactly one is expected", maxDocuments)
	}
	return ""
}
