package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"modernc.org/sqlite"               // and the driver "sqlite"

	"github.com/fairway-project/fairway/registry"
)

// Store keeps clusters in an SQL database. Several processes may share one.
type Store struct {
	db       *sql.DB
	postgres bool

	mutex   sync.Mutex
	tag     string
	entries []Entry // as they were when the tag was set
}

// Entry is a cluster in the store.
type Entry struct {
	// Cluster is what people want, with its defaults, and with its status.
	registry.Cluster
	Created time.Time
	// Revision counts changes of what people want, StatusRevision those of the status.
	Revision, StatusRevision int64
}

// ErrUnknown says that there is no such cluster.
var ErrUnknown = errors.New("there is no such cluster")

// TakenError says that the id or alias of a cluster is another's already.
type TakenError struct{ Name, By string }

func (e *TakenError) Error() string {
	return fmt.Sprintf("%q is the id or alias of cluster %s already", e.Name, e.By)
}

// OpenStore opens a database and brings its tables up to date: PostgreSQL for an address that begins
// with postgres://, and otherwise the SQLite file of that path, which is made where it is missing. No
// error names a password.
func OpenStore(ctx context.Context, database string) (*Store, error) {
	s := &Store{postgres: strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")}
	var err error
	if s.postgres {
		if s.db, err = sql.Open("pgx", database); err != nil {
			return nil, errors.New("the address of the PostgreSQL database is wrong; it is like postgres://user@host/database")
		}
	} else if s.db, err = openSQLite(database); err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	s.db.SetMaxOpenConns(8)
	s.db.SetMaxIdleConns(8)
	s.db.SetConnMaxIdleTime(time.Minute)
	if err := s.migrate(ctx); err != nil {
		_ = s.db.Close()
		if broken := (*sqlite.Error)(nil); errors.As(err, &broken) {
			return nil, fmt.Errorf("preparing the database: %s: %w; it has to be an SQLite file that is writable, in a writable folder", database, err)
		}
		return nil, fmt.Errorf("preparing the database: %w", err)
	}
	return s, nil
}

func openSQLite(path string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Config items may be secrets: the file, and those that SQLite puts beside it, are the owner's only.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	// A transaction locks at its beginning, and a commit is on disk when it is acknowledged.
	options := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: options.Encode()}).String())
}

// Close lets go of the database.
func (s *Store) Close() error { return s.db.Close() }

// Ping fails if the database does not answer.
func (s *Store) Ping(ctx context.Context) error { return s.db.PingContext(ctx) }

//go:embed migrations/*.sql
var migrations embed.FS

// migrate applies the migrations that the database lacks, in the order of their names, one process
// at a time.
func (s *Store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	return s.transaction(ctx, func(tx *sql.Tx) error {
		if s.postgres {
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(4661727761)`); err != nil { // any number that is ours
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations (number BIGINT PRIMARY KEY)`); err != nil {
			return err
		}
		var done int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM migrations`).Scan(&done); err != nil {
			return err
		}
		if done > len(names) {
			return fmt.Errorf("it has had %d migrations and this version of Fairway knows %d: it is of a newer version", done, len(names))
		}
		for i, name := range names[done:] {
			statements, err := migrations.ReadFile(name)
			if err != nil {
				return err
			}
			for statement := range strings.SplitSeq(string(statements), ";\n") {
				if strings.TrimSpace(statement) == "" {
					continue
				}
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return fmt.Errorf("%s: %w", filepath.Base(name), err)
				}
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO migrations (number) VALUES ($1)`, done+i+1); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) transaction(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := do(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// List returns all clusters in the order of their creation, and a tag that is another one after any
// change. Nothing in the entries may be changed: they are kept for the next call.
func (s *Store) List(ctx context.Context) ([]Entry, string, error) {
	// The tag is read first: entries that are newer than their tag are only read once more.
	var tag string
	if err := s.db.QueryRowContext(ctx, `SELECT tag FROM changes`).Scan(&tag); err != nil {
		return nil, "", err
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.tag == tag {
		return s.entries, tag, nil
	}
	rows, err := s.db.QueryContext(ctx, `SELECT `+columns+` FROM clusters ORDER BY seq`)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = rows.Close() }()
	entries := []Entry{}
	for rows.Next() {
		e, err := scan(rows)
		if err != nil {
			return nil, "", err
		}
		entries = append(entries, e)
	}
	if err := rows.Err(); err != nil {
		return nil, "", err
	}
	s.tag, s.entries = tag, entries
	return entries, tag, nil
}

// Get returns a cluster by its id, or ErrUnknown.
func (s *Store) Get(ctx context.Context, id string) (Entry, error) {
	return get(ctx, s.db, id)
}

// get looks for a cluster. PostgreSQL fails for texts that are none; no cluster is called so.
func get(ctx context.Context, in interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, id string) (Entry, error) {
	if !utf8.ValidString(id) || strings.ContainsRune(id, 0) {
		return Entry{}, ErrUnknown
	}
	return scan(in.QueryRowContext(ctx, selectOne, id))
}

const (
	columns   = `id, created_at, document, revision, status, status_revision`
	selectOne = `SELECT ` + columns + ` FROM clusters WHERE id = $1`
)

func scan(row interface{ Scan(...any) error }) (Entry, error) {
	var (
		e                    Entry
		id, document, status string
		created              int64
	)
	if err := row.Scan(&id, &created, &document, &e.Revision, &status, &e.StatusRevision); errors.Is(err, sql.ErrNoRows) {
		return Entry{}, ErrUnknown
	} else if err != nil {
		return Entry{}, err
	}
	e.Created = time.UnixMilli(created).UTC()
	if err := json.Unmarshal([]byte(document), &e.Cluster); err != nil {
		return Entry{}, fmt.Errorf("the document of cluster %s in the database: %w", id, err)
	}
	e.Status = &registry.Status{}
	if err := json.Unmarshal([]byte(status), e.Status); err != nil {
		return Entry{}, fmt.Errorf("the status of cluster %s in the database: %w", id, err)
	}
	return e, nil
}

// Create adds clusters, all or none. TakenError if there is one of that id or alias already.
func (s *Store) Create(ctx context.Context, clusters ...registry.Cluster) error {
	return s.write(ctx, func(tx *sql.Tx) (bool, error) {
		for _, c := range clusters {
			if err := create(ctx, tx, c); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// Import adds those of the clusters whose ids are not there yet, all or none, and returns how many.
func (s *Store) Import(ctx context.Context, clusters registry.Clusters) (added int, err error) {
	err = s.write(ctx, func(tx *sql.Tx) (bool, error) {
		added = 0
		for _, c := range clusters {
			if _, err := get(ctx, tx, c.ID); err == nil {
				continue
			} else if !errors.Is(err, ErrUnknown) {
				return false, err
			}
			if err := create(ctx, tx, c); err != nil {
				return false, err
			}
			added++
		}
		return added > 0, nil
	})
	if err != nil {
		return 0, err
	}
	return added, nil
}

func create(ctx context.Context, tx *sql.Tx, c registry.Cluster) error {
	if err := checkNames(ctx, tx, c, ""); err != nil {
		return err
	}
	document, status, err := encode(c)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO clusters (id, seq, alias, created_at, document, revision, status, status_revision)
		VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM clusters), $2, $3, $4, 1, $5, 1)`,
		c.ID, c.Alias, time.Now().UnixMilli(), string(document), string(status))
	return err
}

// checkNames keeps ids and aliases apart: both name clusters. The cluster
// itself, if it is there already, is not in its own way.
func checkNames(ctx context.Context, tx *sql.Tx, c registry.Cluster, itself string) error {
	for _, name := range []string{c.ID, c.Alias} {
		if name == "" {
			continue
		}
		var by string
		err := tx.QueryRowContext(ctx, `SELECT id FROM clusters WHERE (id = $1 OR alias = $2) AND id <> $3`, name, name, itself).Scan(&by)
		if err == nil {
			return &TakenError{Name: name, By: by}
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return nil
}

// Change lets a function change a cluster, keeps what it made of it, and returns that. The function
// must replace maps, lists and the status instead of changing them; where it fails, or changes
// nothing, nothing is written. No other change happens meanwhile.
func (s *Store) Change(ctx context.Context, id string, change func(*Entry) error) (Entry, error) {
	var after Entry
	err := s.write(ctx, func(tx *sql.Tx) (bool, error) {
		before, err := get(ctx, tx, id)
		if err != nil {
			return false, err
		}
		after = before
		if err := change(&after); err != nil {
			return false, err
		}
		oldDocument, oldStatus, err := encode(before.Cluster)
		if err != nil {
			return false, err
		}
		document, status, err := encode(after.Cluster)
		if err != nil {
			return false, err
		}
		wanted, known := !bytes.Equal(document, oldDocument), !bytes.Equal(status, oldStatus)
		if !wanted && !known {
			return false, nil
		}
		if wanted {
			after.Revision++
			if err := checkNames(ctx, tx, after.Cluster, id); err != nil {
				return false, err
			}
		}
		if known {
			after.StatusRevision++
		}
		_, err = tx.ExecContext(ctx, `UPDATE clusters SET alias = $1, document = $2, revision = $3, status = $4, status_revision = $5 WHERE id = $6`,
			after.Alias, string(document), after.Revision, string(status), after.StatusRevision, id)
		return true, err
	})
	if err != nil {
		return Entry{}, err
	}
	return after, nil
}

// Delete removes a cluster if the function does not object.
func (s *Store) Delete(ctx context.Context, id string, object func(Entry) error) error {
	return s.write(ctx, func(tx *sql.Tx) (bool, error) {
		e, err := get(ctx, tx, id)
		if err != nil {
			return false, err
		}
		if err := object(e); err != nil {
			return false, err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM clusters WHERE id = $1`, id)
		return true, err
	})
}

// write waits until no other write is under way, and keeps what was done if that succeeded and
// changed something.
func (s *Store) write(ctx context.Context, do func(*sql.Tx) (changed bool, err error)) error {
	err := s.transaction(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE changes SET tag = $1`, rand.Text()); err != nil {
			return err
		}
		changed, err := do(tx)
		if err == nil && !changed {
			return errUnchanged
		}
		return err
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

var errUnchanged = errors.New("nothing has changed")

// encode takes a cluster apart into what people want of it and what is known.
func encode(c registry.Cluster) (document, status []byte, err error) {
	known := registry.Status{}
	if c.Status != nil {
		known = *c.Status
	}
	c.Status = nil
	if document, err = json.Marshal(c); err != nil {
		return nil, nil, err
	}
	status, err = json.Marshal(known)
	return document, status, err
}
