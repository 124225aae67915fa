package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fairway-project/fairway/strictyaml"
)

// Role is what the holder of a token may do.
type Role string

// The roles. Each may read.
const (
	Read Role = "read"
	// Status may write what is known of clusters, and move on their lifecycle status. It is for
	// Fairway's workers.
	Status Role = "status"
	// Write may change what people want of clusters, and nothing of their status.
	Write Role = "write"
)

// Token is who may use the registry, and how.
type Token struct {
	// Name is who holds the token, for the log.
	Name string `yaml:"name" validate:"required"`
	Role Role   `yaml:"role" validate:"required,oneof=read status write"`
	// SHA256 is that of the token, in hexadecimal digits: who reads the file cannot use it.
	SHA256 string `yaml:"sha256" validate:"required"`
	hash   [sha256.Size]byte
}

type tokenDocument struct {
	Tokens []Token `yaml:"tokens" validate:"required,min=1,dive"`
}

// Check implements strictyaml.Checker, and fills in the hashes.
func (d *tokenDocument) Check(report func(field, format string, args ...any)) {
	first := map[string]int{}
	for i := range d.Tokens {
		token := &d.Tokens[i]
		hash, err := hex.DecodeString(token.SHA256)
		if token.SHA256 != "" && (err != nil || copy(token.hash[:], hash) != len(hash) || len(hash) != sha256.Size) {
			// What is there may be a token, by mistake: it is not shown.
			report(fmt.Sprintf("tokens[%d].sha256", i), "must be the SHA-256 of the token, 64 hexadecimal digits")
		}
		if j, duplicate := first[token.SHA256]; duplicate && token.SHA256 != "" {
			report(fmt.Sprintf("tokens[%d].sha256", i), "is that of tokens[%d] already; each token has one role", j)
		}
		first[token.SHA256] = i
	}
}

// Tokens are those that a server accepts.
type Tokens struct {
	path string // empty if they do not come from a file
	log  *slog.Logger

	mutex   sync.Mutex
	read    os.FileInfo
	settled bool // the file was old enough when it was read
	known   []Token
}

// ParseTokens reads a list of tokens, as YAML or JSON; name says in errors where it comes from.
func ParseTokens(name string, data []byte) (*Tokens, error) {
	known, err := parseTokens(name, data)
	return &Tokens{known: known}, err
}

// OpenTokens reads a file of tokens, and again when it changes. A file that has become wrong is
// logged, and the tokens stay as they were.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log}
	return t, t.load()
}

func (t *Tokens) load() error {
	info, err := os.Stat(t.path)
	if err != nil {
		return fmt.Errorf("reading the tokens: %w", err)
	}
	if t.settled && os.SameFile(info, t.read) && info.ModTime().Equal(t.read.ModTime()) && info.Size() == t.read.Size() {
		return nil
	}
	data, err := os.ReadFile(t.path)
	if err != nil {
		return fmt.Errorf("reading the tokens: %w", err)
	}
	// A file that was written just now may be written again within the same tick of its clock.
	t.read, t.settled = info, time.Since(info.ModTime()).Abs() > 2*time.Second
	known, err := parseTokens(t.path, data)
	if err != nil {
		return err
	}
	t.known = known
	return nil
}

func parseTokens(name string, data []byte) ([]Token, error) {
	var d tokenDocument
	if err := strictyaml.Decode(name, data, &d); err != nil {
		return nil, err
	}
	return d.Tokens, nil
}

// find returns who holds a token. How long it takes says nothing about the tokens that there are.
func (t *Tokens) find(presented string) (Token, bool) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.path != "" {
		if err := t.load(); err != nil {
			t.log.Error("the tokens stay as they were", "error", err)
		}
	}
	hash := sha256.Sum256([]byte(presented))
	var holder Token
	found := false
	for _, token := range t.known {
		if subtle.ConstantTimeCompare(hash[:], token.hash[:]) == 1 {
			holder, found = token, true
		}
	}
	return holder, found
}
