package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/user"
	"path/filepath"
	"regexp"
	"text/template"
	"time"

	"code.gitea.io/sdk/gitea"
)

// Forge says how to reach the lab's forge, a Gitea, and the configuration repository on it.
type Forge struct {
	// URL is the forge's address behind its proxy; the API is below /api/v1.
	URL string
	// Owner and Repository name the configuration repository.
	Owner, Repository string
	// OperatorToken belongs to the administrator whom Fairway acts as; the others belong to
	// people who may write to the configuration repository and review on it.
	OperatorToken, AuthorToken, ReviewerToken string
}

const (
	forgeOwner      = "fairway"
	forgeRepository = "config"

	forgeOperator = "operator"
	forgeAuthor   = "author"
	forgeReviewer = "reviewer"
)

// forgeState is the forge once it is filled.
type forgeState struct {
	operatorToken, authorToken, reviewerToken string
}

// Forge returns the address and the tokens of the forge; they are empty before it has started.
func (l *Lab) Forge() Forge {
	l.mu.Lock()
	state := l.forge
	l.mu.Unlock()
	if state == nil {
		return Forge{Owner: forgeOwner, Repository: forgeRepository}
	}
	return Forge{
		URL:           "http://" + l.Proxied("forge"),
		Owner:         forgeOwner,
		Repository:    forgeRepository,
		OperatorToken: state.operatorToken,
		AuthorToken:   state.authorToken,
		ReviewerToken: state.reviewerToken,
	}
}

// startForge starts Gitea and fills it with users and the configuration repository.
func (l *Lab) startForge(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return fmt.Errorf("starting the forge: %w", err)
	}
	if err := l.endpoint("forge", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		return err
	}
	if err := l.writeForgeConfig(ctx, port); err != nil {
		return fmt.Errorf("configuring the forge: %w", err)
	}
	if _, err := l.Run(ctx, Process{
		Name:    "forge",
		Command: []string{l.bin("gitea"), "web", "--config", l.path("forge", "app.ini")},
		Env:     l.forgeEnv(),
		Ready:   l.forgeReady,
	}); err != nil {
		return err
	}
	state, err := l.fillForge(ctx)
	if err != nil {
		return fmt.Errorf("filling the forge: %w", err)
	}
	l.mu.Lock()
	l.forge = state
	l.mu.Unlock()
	return nil
}

func (l *Lab) forgeReady(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Direct("forge")+"/api/healthz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the forge's health check answers %s", response.Status)
	}
	return nil
}

// forgeEnv keeps Gitea's files in one place. Gitea refuses to run as root unless told so; a lab
// in a container often is root, and nothing but the loopback interface reaches this forge.
func (l *Lab) forgeEnv() []string {
	return []string{
		"HOME=" + l.path("forge"),
		"GITEA_WORK_DIR=" + l.path("forge"),
		"GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT=true",
	}
}

// fillForge makes the users with their tokens and the configuration repository with its
// channels and their protection.
func (l *Lab) fillForge(ctx context.Context) (*forgeState, error) {
	state := &forgeState{}
	var err error
	if state.operatorToken, err = l.createForgeOperator(ctx); err != nil {
		return nil, err
	}
	operator, err := l.forgeClient(ctx, gitea.SetToken(state.operatorToken))
	if err != nil {
		return nil, err
	}
	if err := awaitForgeToken(ctx, operator); err != nil {
		return nil, err
	}
	if state.authorToken, err = l.createForgeUser(ctx, operator, forgeAuthor); err != nil {
		return nil, err
	}
	if state.reviewerToken, err = l.createForgeUser(ctx, operator, forgeReviewer); err != nil {
		return nil, err
	}
	return state, l.createConfigRepository(ctx, operator, state.operatorToken)
}

// createConfigRepository makes the configuration repository with its channels: anybody's pull
// request gets into dev, only Fairway into alpha, and only what was approved into stable.
func (l *Lab) createConfigRepository(ctx context.Context, operator *gitea.Client, token string) error {
	if _, _, err := operator.CreateOrg(gitea.CreateOrgOption{Name: forgeOwner, FullName: "Fairway", Visibility: gitea.VisibleTypePublic}); err != nil {
		return fmt.Errorf("creating organisation %s: %w", forgeOwner, err)
	}
	if _, _, err := operator.CreateOrgRepo(forgeOwner, gitea.CreateRepoOption{
		Name: forgeRepository, Description: "The configuration of the clusters, a branch a channel", DefaultBranch: "dev",
	}); err != nil {
		return fmt.Errorf("creating repository %s/%s: %w", forgeOwner, forgeRepository, err)
	}
	write := gitea.AccessModeWrite
	for _, name := range []string{forgeAuthor, forgeReviewer} {
		if _, err := operator.AddCollaborator(forgeOwner, forgeRepository, name, gitea.AddCollaboratorOption{Permission: &write}); err != nil {
			return fmt.Errorf("letting %s write to %s/%s: %w", name, forgeOwner, forgeRepository, err)
		}
	}
	if err := l.pushHistory(ctx, token); err != nil {
		return err
	}
	for _, protection := range []gitea.CreateBranchProtectionOption{
		{RuleName: "alpha", EnablePush: true, EnablePushWhitelist: true, PushWhitelistUsernames: []string{forgeOperator}},
		{RuleName: "stable", RequiredApprovals: 1, BlockOnRejectedReviews: true, DismissStaleApprovals: true, BlockAdminMergeOverride: true},
	} {
		if _, _, err := operator.CreateBranchProtection(forgeOwner, forgeRepository, protection); err != nil {
			return fmt.Errorf("protecting branch %s: %w", protection.RuleName, err)
		}
	}
	return nil
}

// createForgeOperator makes the first user. Only Gitea's command line can, since the API wants
// an administrator already; it never prints the password that nobody needs.
func (l *Lab) createForgeOperator(ctx context.Context) (token string, err error) {
	admin := func(args ...string) (string, error) {
		args = append([]string{"admin", "user", "--config", l.path("forge", "app.ini")}, args...)
		return run(ctx, l.path("forge"), l.forgeEnv(), l.bin("gitea"), args...)
	}
	if _, err := admin("create", "--admin", "--username", forgeOperator, "--email", forgeEmail(forgeOperator),
		"--random-password", "--must-change-password=false"); err != nil {
		return "", err
	}
	out, err := admin("generate-access-token", "--username", forgeOperator, "--token-name", "lab", "--scopes", "all", "--raw")
	if err != nil {
		return "", err
	}
	if token = accessToken.FindString(out); token == "" {
		return "", errors.New("the forge's command line has made a token and not printed it")
	}
	return token, nil
}

// accessToken is what Gitea prints on a line of its own, with warnings before it as root, and after it on a busy
// machine.
var accessToken = regexp.MustCompile(`(?m)^[0-9a-f]{40}$`)

// awaitForgeToken waits until the server knows the token that the command line has made: on a busy machine
// it has been seen to refuse it at first.
func awaitForgeToken(ctx context.Context, operator *gitea.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		_, _, err := operator.GetMyUserInfo()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the forge does not know its operator: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// createForgeUser makes a user with a token that may do with repositories, pull requests and
// reviews what the user may.
func (l *Lab) createForgeUser(ctx context.Context, operator *gitea.Client, name string) (token string, err error) {
	password := rand.Text()
	if _, _, err := operator.AdminCreateUser(gitea.CreateUserOption{
		Username: name, Email: forgeEmail(name), Password: password, MustChangePassword: gitea.OptionalBool(false),
	}); err != nil {
		return "", fmt.Errorf("creating user %s: %w", name, err)
	}
	client, err := l.forgeClient(ctx, gitea.SetBasicAuth(name, password))
	if err != nil {
		return "", err
	}
	created, _, err := client.CreateAccessToken(gitea.CreateAccessTokenOption{
		Name:   "lab",
		Scopes: []gitea.AccessTokenScope{"write:repository", "write:issue", "read:user"},
	})
	if err != nil {
		return "", fmt.Errorf("creating a token for user %s: %w", name, err)
	}
	return created.Token, nil
}

// forgeClient talks to the forge directly, past the proxy and its faults.
func (l *Lab) forgeClient(ctx context.Context, as gitea.ClientOption) (*gitea.Client, error) {
	// An empty version spares the question for it, which some builds answer with "development".
	return gitea.NewClient("http://"+l.Direct("forge"), gitea.SetContext(ctx), gitea.SetGiteaVersion(""), as)
}

func forgeEmail(name string) string { return name + "@fairway.test" }

func (l *Lab) writeForgeConfig(ctx context.Context, port int) error {
	static, err := l.forgeStaticFiles(ctx)
	if err != nil {
		return err
	}
	current, err := user.Current()
	if err != nil {
		return err
	}
	// Gitea wants 32 bytes in base64 for this secret; any text will do for the others.
	secret := make([]byte, 32)
	rand.Read(secret)
	var ini bytes.Buffer
	if err := forgeConfig.Execute(&ini, map[string]any{
		"User": current.Username, "Dir": l.path("forge"), "Static": static,
		"Port": port, "URL": "http://" + l.Proxied("forge"),
		"InternalToken": rand.Text(), "SecretKey": rand.Text(), "JWTSecret": base64.RawURLEncoding.EncodeToString(secret),
	}); err != nil {
		return err
	}
	return writeFile(l.path("forge", "app.ini"), ini.Bytes(), 0o600)
}

// forgeStaticFiles finds the templates, locales and public files that Gitea reads at run time:
// in the module that its binary was built from.
func (l *Lab) forgeStaticFiles(ctx context.Context) (string, error) {
	out, err := run(ctx, filepath.Join(l.root, "lab", "forge"), nil, "go", "mod", "download", "-json", "code.gitea.io/gitea")
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return "", fmt.Errorf("finding Gitea's module: %w", err)
	}
	return module.Dir, nil
}

// Webhooks may call the loopback interface, which Gitea forbids by default, and the queue lives
// in memory, because the one on disk delivers a webhook seconds late.
var forgeConfig = template.Must(template.New("app.ini").Parse(`RUN_USER = {{.User}}
WORK_PATH = {{.Dir}}

[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {{.Port}}
ROOT_URL = {{.URL}}/
STATIC_ROOT_PATH = {{.Static}}
DISABLE_SSH = true
OFFLINE_MODE = true

[database]
DB_TYPE = sqlite3
PATH = {{.Dir}}/gitea.db
SQLITE_JOURNAL_MODE = WAL

[repository]
ROOT = {{.Dir}}/repositories
DEFAULT_BRANCH = dev

[security]
INSTALL_LOCK = true
INTERNAL_TOKEN = {{.InternalToken}}
SECRET_KEY = {{.SecretKey}}

[oauth2]
ENABLED = false
JWT_SECRET = {{.JWTSecret}}

[service]
DISABLE_REGISTRATION = true

[webhook]
ALLOWED_HOST_LIST = loopback

[queue]
TYPE = channel

[indexer]
ISSUE_INDEXER_TYPE = db

[actions]
ENABLED = false

[packages]
ENABLED = false

[cron]
ENABLED = false

[log]
MODE = console
LEVEL = Info
`))
