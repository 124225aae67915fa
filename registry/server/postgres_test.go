package server_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	status := m.Run()
	if stop, err := postgres.stop, postgres.err; stop != nil && err == nil {
		stop()
	}
	os.Exit(status)
}

// postgres is the one server of this test run.
var postgres struct {
	once sync.Once
	dir  string
	stop func()
	err  error
	made atomic.Int32 // databases
}

// newDatabase makes an empty PostgreSQL database and returns its address. Without PostgreSQL on the
// machine it installs the Debian package, or fails.
func newDatabase(t *testing.T) string {
	t.Helper()
	postgres.once.Do(func() { postgres.dir, postgres.stop, postgres.err = startPostgres() })
	require.NoError(t, postgres.err, "these tests need PostgreSQL")
	name := fmt.Sprintf("test%d", postgres.made.Add(1))
	admin, err := sql.Open("pgx", address("postgres"))
	require.NoError(t, err)
	defer func() { _ = admin.Close() }()
	_, err = admin.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	return address(name)
}

func address(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {postgres.dir}, "user": {"fairway"}}.Encode()
}

func startPostgres() (dir string, stop func(), err error) {
	bin, err := findPostgres()
	if err != nil {
		return "", nil, err
	}
	if dir, err = os.MkdirTemp("/tmp", "pg"); err != nil { // short: a socket's path has at most 107 bytes
		return "", nil, err
	}
	credential, err := unprivileged(dir)
	if err != nil {
		return "", nil, err
	}
	run := func(name string, arguments ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), arguments...)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGQUIT}
		return cmd
	}
	data := filepath.Join(dir, "data")
	if output, err := run("initdb", "--pgdata", data, "--username", "fairway", "--auth", "trust", "--no-sync", "--encoding", "UTF8").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("initdb: %w: %s", err, output)
	}
	server := run("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	var log strings.Builder
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	stop = func() {
		_ = server.Process.Signal(syscall.SIGINT)
		<-ended
		_ = os.RemoveAll(dir)
	}
	postgres.dir = dir
	admin, err := sql.Open("pgx", address("postgres"))
	if err != nil {
		stop()
		return "", nil, err
	}
	defer func() { _ = admin.Close() }()
	deadline := time.After(time.Minute)
	for admin.PingContext(context.Background()) != nil {
		select {
		case err := <-ended:
			ended <- err
			return "", nil, fmt.Errorf("postgres: %w: %s", err, log.String())
		case <-deadline:
			stop()
			return "", nil, errors.New("postgres does not answer within a minute")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return dir, stop, nil
}

// unprivileged is who runs PostgreSQL, which refuses to be root. The directory becomes theirs.
func unprivileged(dir string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, os.Chown(dir, int(uid), int(gid))
}

// findPostgres returns the folder of PostgreSQL's programs, after installing them where they are
// missing; one test run at a time does that.
func findPostgres() (string, error) {
	if bin, err := postgresBin(); err == nil {
		return bin, nil
	}
	lock := flock.New(filepath.Join(os.TempDir(), "fairway-install-postgresql.lock"))
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if bin, err := postgresBin(); err == nil {
		return bin, nil
	}
	for _, arguments := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", "postgresql"}} {
		install := exec.Command("apt-get", arguments...)
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := install.CombinedOutput(); err != nil {
			return "", fmt.Errorf("PostgreSQL is not installed, and apt-get %s fails: %w: %s", strings.Join(arguments, " "), err, output)
		}
	}
	return postgresBin()
}

func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("there is no initdb in the PATH, nor in /usr/lib/postgresql/*/bin")
	}
	return filepath.Dir(found[len(found)-1]), nil
}
