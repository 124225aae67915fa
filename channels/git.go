package channels

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// exitError says with which code git ended, and what it said last.
type exitError struct {
	command string
	code    int
	text    string // all on one line
	said    string // line by line, without secrets, and not for people
}

func (e *exitError) Error() string {
	return fmt.Sprintf("git %s ends with code %d: %s", e.command, e.code, e.text)
}

// exitCode is how git ended; -1 if it did not run to its end.
func exitCode(err error) int {
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return -1
}

// git runs git on a repository, for at most the mirror's timeout. Neither the configuration of the
// machine or its users nor hooks count, and only the protocol of the mirror's address is spoken.
func (m *Mirror) git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	return m.gitWith(ctx, dir, nil, "", args...)
}

// gitWith does so with more environment and an input. What git has said to its standard output is
// returned with an *exitError, too.
func (m *Mirror) gitWith(ctx context.Context, dir string, more []string, input string, args ...string) ([]byte, error) {
	environment, secrets, err := m.environment(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.timeout(), errSlow)
	defer cancel()
	command := exec.CommandContext(ctx, "git", args...)
	command.Env = append(environment, more...)
	command.Dir = "/"
	if input != "" {
		command.Stdin = strings.NewReader(input)
	}
	// git starts other processes, which would go on without it. SIGTERM lets it remove its lock files.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	tell := func(signal syscall.Signal) error { return syscall.Kill(-command.Process.Pid, signal) }
	var killing *time.Timer
	command.Cancel = func() error {
		killing = time.AfterFunc(killAfter, func() { _ = tell(syscall.SIGKILL) })
		return tell(syscall.SIGTERM)
	}
	command.WaitDelay = 2 * killAfter
	stdout, stderr := &bounded{limit: maxOutput, full: cancel}, &tail{limit: 8 << 10}
	command.Stdout, command.Stderr = stdout, stderr
	err = command.Run()
	if killing != nil && killing.Stop() {
		_ = tell(syscall.SIGKILL) // what git has left, if anything
	}
	var exit *exec.ExitError
	switch {
	case err == nil && !stdout.over:
		return stdout.kept.Bytes(), nil
	case stdout.over:
		return nil, fmt.Errorf("git %s says more than %d bytes", args[0], maxOutput)
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), errSlow):
		return nil, fmt.Errorf("%w: git %s takes longer than %s (repository.timeout)", ErrUnreachable, args[0], m.timeout())
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.As(err, &exit):
		said := without(secrets, stderr.String())
		return stdout.kept.Bytes(), &exitError{args[0], exit.ExitCode(), readable(said, nil), said}
	default:
		return nil, fmt.Errorf("running git %s: %w", args[0], err)
	}
}

var errSlow = errors.New("timeout")

const (
	killAfter = 2 * time.Second
	maxOutput = 64 << 20
)

// passed are the variables that git needs to find itself, ssh keys, proxies and certificates.
var passed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
}

func (m *Mirror) environment(dir string) (environment, secrets []string, err error) {
	spoken, err := protocol(m.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: repository.url %w", ErrUnusable, err)
	}
	environment = []string{
		"LC_ALL=C", "GIT_DIR=" + dir, "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_ALLOW_PROTOCOL=" + spoken,
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_LITERAL_PATHSPECS=1",
	}
	if os.Getenv("GIT_SSH_COMMAND") == "" {
		environment = append(environment, "GIT_SSH_COMMAND=ssh -o BatchMode=yes")
	}
	for _, name := range passed {
		if value, set := os.LookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	settings := [][2]string{
		{"core.hooksPath", os.DevNull}, {"gc.auto", "0"}, {"maintenance.auto", "false"}, {"fetch.writeCommitGraph", "true"},
		{"http.followRedirects", "false"}, // which would take the credentials along
	}
	if spoken == "https" || spoken == "http" {
		token, err := m.token()
		if err != nil {
			return nil, nil, err
		}
		if token != "" {
			// A setting in the environment is seen by git only; an argument would be by everybody.
			basic := base64.StdEncoding.EncodeToString([]byte(m.user() + ":" + token))
			settings = append(settings, [2]string{"http.extraHeader", "Authorization: Basic " + basic})
			secrets = []string{token, basic}
		}
	}
	environment = append(environment, "GIT_CONFIG_COUNT="+strconv.Itoa(len(settings)))
	for i, setting := range settings {
		environment = append(environment, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, setting[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, setting[1]))
	}
	return environment, secrets, nil
}

func (m *Mirror) user() string {
	if m.User != "" {
		return m.User
	}
	return "x-access-token" // forges look at the token only
}

// token is read whenever it is used, so that it can be changed.
func (m *Mirror) token() (string, error) {
	var token, source string
	switch {
	case m.TokenEnv != "":
		token, source = os.Getenv(m.TokenEnv), "the environment variable "+m.TokenEnv
	case m.TokenFile != "":
		data, err := os.ReadFile(m.TokenFile)
		if err != nil {
			return "", fmt.Errorf("%w: repository.token_file: %w", ErrRefused, err)
		}
		token, source = string(data), "the file "+m.TokenFile
	default:
		return "", nil
	}
	token = strings.TrimSpace(token)
	if token == "" || strings.ContainsFunc(token, unicode.IsControl) {
		return "", fmt.Errorf("%w: %s holds no token", ErrRefused, source)
	}
	return token, nil
}

// readable is what git and the other side have said, without secrets, on one line.
func readable(text string, secrets []string) string {
	text = without(secrets, text)
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)), " ")
	if text == "" {
		return "(nothing said)"
	}
	const longest = 500
	if runes := []rune(text); len(runes) > longest {
		text = string(runes[:longest]) + " ..."
	}
	return text
}

func without(secrets []string, text string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// bounded keeps output up to a limit, beyond which it ends the process.
type bounded struct {
	kept  bytes.Buffer // not embedded: its ReadFrom knows no limit
	limit int
	over  bool
	full  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.kept.Len()+len(p) > b.limit {
		if !b.over {
			b.over = true
			b.full()
		}
		return len(p), nil
	}
	return b.kept.Write(p)
}

// tail keeps the end of an output.
type tail struct {
	limit int
	kept  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.kept) }

// oldest is the version of git from which on all that is used is there.
var oldest = [2]int{2, 38}

var gitVersion = regexp.MustCompile(`^git version (\d+)\.(\d+)`)

func checkGit(answer string) error {
	parts := gitVersion.FindStringSubmatch(answer)
	if parts == nil {
		return fmt.Errorf("git answers %q when asked for its version", readable(answer, nil))
	}
	major, _ := strconv.Atoi(parts[1])
	minor, _ := strconv.Atoi(parts[2])
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return fmt.Errorf("git is %d.%d; install %d.%d or newer", major, minor, oldest[0], oldest[1])
	}
	return nil
}
