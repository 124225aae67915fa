// Package notify tells people what they want to know at once: through a webhook of their own, and
// through chat, mail and other services.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Activities implements workflows.Notifications.
type Activities struct {
	// Settings are the `notify` part of the configuration. Addresses and the secret are read whenever
	// they are used, so that they can be changed.
	Settings config.Notify
	// Find returns a cluster of the registry, whose owner, environment and channel choose the routes.
	// While it fails, or without it, what it would tell restricts nothing: better too many are told
	// than nobody.
	Find func(ctx context.Context, cluster string) (registry.Cluster, error)
	// Quiet says of which clusters nobody is told anything; nil means of none.
	Quiet func(cluster string) bool

	told memory
}

var _ workflows.Notifications = (*Activities)(nil)

// Signature is the header with "sha256=" and the HMAC-SHA256 of the body in hexadecimal digits.
const Signature = "X-Fairway-Signature"

// Notify implements workflows.Notifications. It tells the webhook and every route that matches, all
// at the same time. What one of them has been told is not told it again by this worker within a
// day, nor are the same words about the same thing within ten minutes. A retry tells only those that
// failed. A worker that crashed between a delivery and the end of the activity may repeat it.
//
// Errors are of type Unreachable if a later attempt may succeed (no answer, HTTP 429 and 5xx, with
// the delay that the hook asks for), and of type InvalidInput, which is final, otherwise. No error
// names an address, which may be a secret.
func (a *Activities) Notify(ctx context.Context, n workflows.Notification) error {
	if a.Quiet != nil && a.Quiet(n.Cluster) {
		return nil
	}
	ways := a.ways(ctx, n)
	done := recall(ctx)
	errs := make([]error, len(ways))
	var sending sync.WaitGroup
	for i, way := range ways {
		if slices.Contains(done, way.name) || a.told.has(way.name, n) {
			continue
		}
		sending.Go(func() { errs[i] = way.tell(ctx, n) })
	}
	sending.Wait()
	for i, way := range ways {
		if errs[i] == nil && !slices.Contains(done, way.name) {
			a.told.add(way.name, n)
			done = append(done, way.name)
		}
	}
	if isActivity(ctx) && len(ways) > 1 {
		activity.RecordHeartbeat(ctx, done)
	}
	return together(errs)
}

// isActivity says whether this is the activity Notify and not part of another one, whose heartbeats
// are its own.
func isActivity(ctx context.Context) bool {
	return activity.IsActivity(ctx) && activity.GetInfo(ctx).ActivityType.Name == "Notify"
}

// recall names what earlier attempts have told already.
func recall(ctx context.Context) (done []string) {
	if isActivity(ctx) && activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &done) // without it somebody is told twice, which is no harm
	}
	return done
}

// together is the error of several ways: to be tried again if that can help one of them, when the
// most patient one allows it.
func together(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) < 2 {
		return errors.Join(errs...)
	}
	texts, again, delay := make([]string, len(errs)), false, time.Duration(0)
	for i, err := range errs {
		texts[i] = err.Error()
		var typed *temporal.ApplicationError
		if errors.As(err, &typed) {
			texts[i], again, delay = typed.Message(), again || !typed.NonRetryable(), max(delay, typed.NextRetryDelay())
		}
	}
	if !again {
		return invalid("%s", strings.Join(texts, "; "))
	}
	return unreachable(delay, "%s", strings.Join(texts, "; "))
}

// way leads to somebody who is told.
type way struct {
	name string // "webhook", or "route NAME"
	tell func(context.Context, workflows.Notification) error
}

// ways are those that a notification takes.
func (a *Activities) ways(ctx context.Context, n workflows.Notification) (out []way) {
	if s := a.Settings; (s.URLEnv != "" || s.URLFile != "") && wants(s.Kinds, n.Kind) {
		out = append(out, way{"webhook", a.post})
	}
	if len(a.Settings.Routes) == 0 {
		return out
	}
	about := a.about(ctx, n)
	for _, route := range a.Settings.Routes {
		if wants(route.Kinds, n.Kind) && about.takes(route) {
			out = append(out, way{"route " + route.Name, func(ctx context.Context, n workflows.Notification) error {
				return a.shout(ctx, route, n)
			}})
		}
	}
	return out
}

func wants(kinds []string, kind string) bool { return len(kinds) == 0 || slices.Contains(kinds, kind) }

// post tells the webhook: a JSON object, whose field "text" is what Slack and Mattermost show.
func (a *Activities) post(ctx context.Context, n workflows.Notification) error {
	s := a.Settings
	address, err := read("notify.url", s.URLEnv, s.URLFile)
	if err != nil {
		return err
	}
	secret, err := read("notify.secret", s.SecretEnv, s.SecretFile)
	if err != nil {
		return err
	}
	body, err := json.Marshal(n)
	if err != nil {
		return invalid("encoding a notification: %v", err)
	}
	if s.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Timeout)
		defer cancel()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil || request.URL.Host == "" || !strings.HasPrefix(request.URL.Scheme, "http") {
		return invalid("notify: what %s holds is not the address of a webhook; it has to begin with https://", source(s.URLEnv, s.URLFile))
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "fairway")
	if secret != "" {
		request.Header.Set(Signature, "sha256="+sign(body, secret))
	}
	response, err := client.Do(request)
	if err != nil {
		return unreachable(0, "notify: the webhook does not answer: %s", cause(err))
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, maxAnswer)) // so that the connection is used again
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusTooManyRequests || code >= 500:
		return unreachable(retryAfter(response.Header.Get("Retry-After"), time.Now()), "notify: the webhook answers with HTTP status %d", code)
	case code >= 300 && code < 400:
		return invalid("notify: the webhook redirects (HTTP status %d) to where its notification does not go; correct the address in %s", code, source(s.URLEnv, s.URLFile))
	default:
		return invalid("notify: the webhook refuses the notification with HTTP status %d; check the address in %s and what the hook accepts", code, source(s.URLEnv, s.URLFile))
	}
}

// maxAnswer bounds what is read of an answer, which says nothing of interest.
const maxAnswer = 64 << 10

// client follows redirects only to the host that the operator has named, and only those that stay
// a POST: others would send the notification elsewhere, or nothing at all.
var client = &http.Client{
	CheckRedirect: func(request *http.Request, via []*http.Request) error {
		first := via[0].URL
		if request.Method != http.MethodPost || request.URL.Host != first.Host || request.URL.Scheme != first.Scheme || len(via) >= 5 {
			return http.ErrUseLastResponse
		}
		return nil
	},
}

func sign(body []byte, secret string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(body) // never fails
	return hex.EncodeToString(mac.Sum(nil))
}

// read gets a setting from the environment or a file; it is empty if neither is named.
func read(field, env, file string) (string, error) {
	value := ""
	switch {
	case env != "":
		value = os.Getenv(env)
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", invalid("%s_file: %v", field, err)
		}
		value = string(data)
	default:
		return "", nil
	}
	value = strings.TrimSpace(value)
	if value == "" {
		return "", invalid("%s_%s: %s is empty", field, map[bool]string{true: "env", false: "file"}[env != ""], source(env, file))
	}
	return value, nil
}

func source(env, file string) string {
	if env != "" {
		return "the environment variable " + env
	}
	return "the file " + file
}

// cause says why there was no answer without the address: errors of net/http and net name it.
func cause(err error) string {
	var lookup *net.DNSError
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.As(err, &lookup):
		return "its host name cannot be resolved"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "it took too long (notify.timeout)"
	case errors.As(err, &errno):
		return errno.Error()
	case strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: "):
		return "its TLS certificate is not accepted"
	default:
		return "the connection broke"
	}
}

// maxRetryAfter bounds for how long a hook may ask to be left alone.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name, seconds or a date; 0 if there is none
// (https://www.rfc-editor.org/rfc/rfc9110#field.retry-after).
func retryAfter(value string, now time.Time) time.Duration {
	var delay time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		delay = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		delay = at.Sub(now)
	}
	return min(max(delay, 0), maxRetryAfter)
}

func unreachable(delay time.Duration, format string, args ...any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf(format, args...), workflows.Unreachable,
		temporal.ApplicationErrorOptions{NextRetryDelay: delay})
}

func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), workflows.InvalidInput, nil)
}
