package channels_test

import (
	"context"
	"encoding/base64"
	"io/fs"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/channels"
	"github.com/fairway-project/fairway/channels/channelstest"
)

func TestWhichAddressesAreAccepted(t *testing.T) {
	for _, address := range []string{
		"https://example.org/team/config.git", "ssh://git@example.org:2222/team/config", "git@example.org:team/config.git", "example.org:config",
		"/srv/config.git", "file:///srv/config.git", "http://127.0.0.1:3000/team/config", "http://localhost/config", "http://[::1]:3000/config",
	} {
		require.NoError(t, channels.CheckURL(address), address)
	}
	const form = "; must be https://host/path, ssh://user@host/path, user@host:path or an absolute path"
	for address, want := range map[string]string{
		"":                                       `is ""` + form,
		"config":                                 `is "config"` + form,
		"../config":                              `is "../config"` + form,
		"--upload-pack=touch":                    `is "--upload-pack=touch"` + form,
		"-oProxyCommand=x:y":                     form,
		"ext::sh -c touch":                       form,
		"ext::touch":                             form,
		"fd::3":                                  form,
		"ssh://-oProxyCommand=touch/x":           form,
		"ssh://-oProxyCommand@example.org/x":     form,
		"-x@example.org:config":                  form,
		"git@-x:config":                          form,
		"git://example.org/config":               form,
		"ftp://example.org/config":               form,
		"https://example.org":                    form,
		"https:///config":                        form,
		"https://example.org/config?x=y":         form,
		"file://example.org/config":              form,
		"/srv/config\n.git":                      form,
		"http://example.org/config":              "http is accepted for this machine only, use https",
		"http://127.0.0.1.nip.io/config":         "http is accepted for this machine only, use https",
		"https://anna:s3cret@example.org/config": "has credentials in it; take them out and name them by user and token_env or token_file",
		"https://s3cret@example.org/config":      "has credentials in it",
		"ssh://anna:s3cret@example.org/config":   "has credentials in it",
	} {
		err := channels.CheckURL(address)
		require.ErrorContains(t, err, want, address)
		require.NotContains(t, err.Error(), "s3cret")
	}
	m := &channels.Mirror{URL: "ext::touch"}
	require.ErrorIs(t, m.Check(t.Context()), channels.ErrUnusable)
	_, err := m.Heads(t.Context())
	require.ErrorIs(t, err, channels.ErrUnusable)
}

func TestAGitThatIsTooOldIsRefusedAtTheStart(t *testing.T) {
	for answer, want := range map[string]string{
		"git version 2.37.9": "git is 2.37; install 2.38 or newer", "git version 1.99.0": "git is 1.99; install 2.38 or newer", "hello": `git answers "hello" when asked for its version`,
		"git version 2.38.0": "", "git version 3.0.0": "", "git version 2.39.5 (Apple Git-154)": "",
	} {
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho '"+answer+"'\n"), 0o700))
		t.Setenv("PATH", bin)
		err := (&channels.Mirror{URL: "/srv/config.git", Dir: filepath.Join(bin, "mirror.git")}).Check(t.Context())
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, (&channels.Mirror{URL: "/srv/config.git"}).Check(t.Context()), "executable file not found")
}

// serve is a forge: the repository by http for those who have the token. Each answer may be changed.
func serve(t *testing.T, o channelstest.Repository, change func(http.ResponseWriter, *http.Request) (done bool)) string {
	t.Helper()
	backend := filepath.Join(strings.TrimSpace(output(t, "git", "--exec-path")), "git-http-backend")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if change != nil && change(w, r) {
			return
		}
		if _, password, _ := r.BasicAuth(); password != token {
			w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
			http.Error(w, "who are you, "+r.Header.Get("Authorization")+"?", http.StatusUnauthorized)
			return
		}
		(&cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Dir(o.Dir), "GIT_HTTP_EXPORT_ALL=1"}}).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/" + filepath.Base(o.Dir)
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	require.NoError(t, err)
	return string(out)
}

const token = "t0ken-of-a-forge"

func TestCredentialsAreUsedAndLeftNowhere(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	t.Setenv("FORGE_TOKEN", token)
	// A git in front of the real one shows what all users of the machine can see.
	bin, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	git, err := exec.LookPath("git")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$@\" >> "+seen+"\nexec "+git+" \"$@\"\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := o.Mirror()
	m.URL, m.TokenEnv = serve(t, o, nil), "FORGE_TOKEN"
	head, err := m.Head(t.Context(), "dev")
	require.NoError(t, err)
	require.Equal(t, commit, head)
	require.Equal(t, "1", content(t, m, commit, "a.yaml"))

	left := output(t, "cat", seen)
	require.Contains(t, left, "fetch")
	require.NoError(t, filepath.WalkDir(m.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			left += string(data)
		}
		return err
	}))
	require.NotContains(t, left, token)
	require.NotContains(t, left, base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token)))
}

func TestWhyTheRepositoryCannotBeUsed(t *testing.T) {
	o := channelstest.New(t)
	commit := o.Commit("dev", "a.yaml", "1")
	t.Setenv("FORGE_TOKEN", token)
	t.Setenv("OTHER_TOKEN", "s3cret-but-wrong")
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	answering := func(status int) string {
		return serve(t, o, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", "http://127.0.0.1:1/elsewhere")
			http.Error(w, "you sent "+r.Header.Get("Authorization"), status)
			return true
		})
	}
	for reason, c := range map[string]struct {
		mirror *channels.Mirror
		kind   error
		text   string
	}{
		"no credentials":    {&channels.Mirror{URL: serve(t, o, nil)}, channels.ErrRefused, "check repository.url and its credentials"},
		"wrong credentials": {&channels.Mirror{URL: serve(t, o, nil), TokenEnv: "OTHER_TOKEN"}, channels.ErrRefused, "check repository.url and its credentials"},
		"forbidden":         {&channels.Mirror{URL: answering(403), TokenEnv: "FORGE_TOKEN"}, channels.ErrRefused, "403"},
		"not found":         {&channels.Mirror{URL: answering(404), TokenEnv: "FORGE_TOKEN"}, channels.ErrRefused, "not found"},
		"sent elsewhere":    {&channels.Mirror{URL: answering(302), TokenEnv: "FORGE_TOKEN"}, channels.ErrRefused, "check repository.url"},
		"overloaded":        {&channels.Mirror{URL: answering(503), TokenEnv: "FORGE_TOKEN"}, channels.ErrUnreachable, "503"},
		"nobody there":      {&channels.Mirror{URL: "http://" + nobody.Addr().String() + "/config"}, channels.ErrUnreachable, "127.0.0.1"},
		"no such directory": {&channels.Mirror{URL: "/nonexistent/config.git"}, channels.ErrRefused, "/nonexistent/config.git"},
		"no token":          {&channels.Mirror{URL: answering(500), TokenEnv: "NO_TOKEN"}, channels.ErrRefused, "the environment variable NO_TOKEN holds no token"},
		"no token file":     {&channels.Mirror{URL: answering(500), TokenFile: "/nonexistent/token"}, channels.ErrRefused, "/nonexistent/token"},
	} {
		t.Run(reason, func(t *testing.T) {
			c.mirror.Dir = filepath.Join(t.TempDir(), "mirror.git")
			_, byHead := c.mirror.Head(t.Context(), "dev")
			_, byTree := c.mirror.Tree(t.Context(), commit, "cluster")
			for _, err := range []error{byHead, byTree} {
				require.ErrorIs(t, err, c.kind)
				require.ErrorContains(t, err, c.text)
				require.NotContains(t, err.Error(), token)
				require.NotContains(t, err.Error(), "s3cret")
				require.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte("x-access-token:"))[:12])
			}
		})
	}
}

func TestARepositoryThatHangsIsLeftAlone(t *testing.T) {
	o := channelstest.New(t)
	var open atomic.Int32
	url := serve(t, o, func(_ http.ResponseWriter, r *http.Request) bool {
		open.Add(1)
		<-r.Context().Done() // until whoever asks has gone
		open.Add(-1)
		return true
	})
	m := &channels.Mirror{URL: url, Dir: filepath.Join(t.TempDir(), "mirror.git"), Timeout: 300 * time.Millisecond}
	_, err := m.Heads(t.Context())
	require.ErrorIs(t, err, channels.ErrUnreachable)
	require.ErrorContains(t, err, "takes longer than 300ms (repository.timeout)")
	require.Eventually(t, func() bool { return open.Load() == 0 }, 5*time.Second, 10*time.Millisecond, "no process of git goes on")

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	m.Timeout = time.Minute
	_, err = m.Heads(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestGitSettingsOfTheMachineDoNotCount(t *testing.T) {
	o := channelstest.New(t)
	o.Commit("dev", "a.yaml", "1")
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, ".gitconfig"), []byte("[url \"/nonexistent/\"]\n\tinsteadOf = /\n"), 0o600))
	t.Setenv("HOME", home)
	t.Setenv("GIT_CONFIG_PARAMETERS", "'url./nonexistent/.insteadOf=/'")
	t.Setenv("GIT_TRACE", "1")
	heads, err := o.Mirror().Heads(t.Context())
	require.NoError(t, err)
	require.Len(t, heads, 1)
}

func TestARepositoryThatNeverStopsTalkingIsNotListenedTo(t *testing.T) {
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\nexec yes 0000000000000000000000000000000000000000\n"), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	_, err := (&channels.Mirror{URL: "/srv/config.git"}).Heads(t.Context())
	require.EqualError(t, err, "git ls-remote says more than 67108864 bytes")
}

func TestNonsenseForRefsIsRefused(t *testing.T) {
	for _, answer := range []string{"hello", "0000\trefs/heads/dev", strings.Repeat("0", 40) + " refs/heads/dev"} {
		bin := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\nprintf '"+strings.ReplaceAll(answer, "\t", `\t`)+"\\n'\n"), 0o700))
		t.Setenv("PATH", bin)
		_, err := (&channels.Mirror{URL: "/srv/config.git"}).Heads(t.Context())
		require.ErrorIs(t, err, channels.ErrUnusable)
	}
}
