package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
	"golang.org/x/sync/singleflight"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/workflows"
)

// subject is whom a notification concerns; a field that is not known is empty.
type subject struct {
	owners               []string
	environment, channel string
	known                bool // the registry has told of the cluster
}

// about is what chooses the routes of a notification.
func (a *Activities) about(ctx context.Context, n workflows.Notification) subject {
	s := subject{channel: n.Channel}
	if n.Owner != "" {
		s.owners = append(s.owners, n.Owner)
	}
	if n.Cluster == "" || a.Find == nil {
		return s
	}
	if cluster, err := a.Find(ctx, n.Cluster); err == nil {
		s.known, s.environment, s.channel = true, cluster.Environment, cmp.Or(s.channel, cluster.Channel)
		s.owners = append(s.owners, cluster.Owner)
	}
	return s
}

func (s subject) takes(route config.Route) bool {
	return s.matches(route.Owners, s.owners...) && s.matches(route.Environments, s.environment) && s.matches(route.Channels, s.channel)
}

// matches says whether a value fits a pattern. Where nothing is known, everything does.
func (s subject) matches(patterns []string, values ...string) bool {
	if len(patterns) == 0 {
		return true
	}
	values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	if len(values) == 0 {
		return !s.known
	}
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return slices.ContainsFunc(values, func(value string) bool {
			fits, _ := path.Match(pattern, value) // patterns are checked with the configuration
			return fits
		})
	})
}

// shout tells the service of a route. The library knows no contexts: what does not end in time goes
// on in the background, where at most inFlight notifications of a route are, and an attempt that
// finds its notification still there waits for it instead of sending another.
func (a *Activities) shout(ctx context.Context, route config.Route, n workflows.Notification) error {
	at := "notify.routes[" + route.Name + "]"
	address, err := read(at+".url", route.URLEnv, route.URLFile)
	if err != nil {
		return err
	}
	within := cmp.Or(a.Settings.Timeout, longest)
	if deadline, bound := ctx.Deadline(); bound {
		within = min(within, time.Until(deadline)-margin)
	}
	flight := a.told.flight(route.Name)
	result := flight.group.DoChan(n.ID, func() (any, error) {
		if a.told.has("route "+route.Name, n) { // it has arrived meanwhile
			return nil, nil
		}
		select {
		case flight.places <- struct{}{}:
			defer func() { <-flight.places }()
		default:
			return nil, errBusy
		}
		if err := send(address, n); err != nil {
			return nil, err
		}
		a.told.add("route "+route.Name, n) // also if nobody waits for it any more
		return nil, nil
	})
	select {
	case got := <-result:
		if errors.Is(got.Err, errAddress) {
			return invalid("%s: what %s holds is no address of a service; it has to be one of Shoutrrr's, such as slack://, smtp:// or generic+https://", at, source(route.URLEnv, route.URLFile))
		}
		return failed(at, got.Err)
	case <-ctx.Done():
		return unreachable(0, "%s: the service does not answer: %s", at, cause(ctx.Err()))
	case <-time.After(within):
		return unreachable(0, "%s: the service does not answer: %s", at, cause(context.DeadlineExceeded))
	}
}

const (
	longest = time.Minute // where notify.timeout is 0
	margin  = time.Second // so that an attempt can still tell what it has done
)

var (
	errBusy    = errors.New("earlier notifications are still under way")
	errAddress = errors.New("no address of a service")
)

// inFlight bounds how many notifications of a route wait for its service.
const inFlight = 4

// flight is what is on its way to a service.
type flight struct {
	group  singleflight.Group
	places chan struct{}
}

// send has the service at an address send a notification. A service that panics has failed.
func send(address string, n workflows.Notification) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("the library cannot cope with its address or answer")
		}
	}()
	scheme, _, found := strings.Cut(address, "://")
	kind, _, _ := strings.Cut(strings.ToLower(scheme), "+")
	if !found || kind == "logger" {
		return errAddress
	}
	service, err := (&router.ServiceRouter{}).Locate(address) // its errors contain the address
	if err != nil && kind == "matrix" {
		return err // it has logged in, or tried to
	}
	if err != nil {
		return errAddress
	}
	params, text := types.Params{}, Body(n)
	if slices.Contains(titled, kind) {
		params.SetTitle(Title(n))
	} else {
		text = Title(n) + "\n" + text
	}
	return service.Send(text, &params)
}

// titled are the services that show a title of its own.
var titled = []string{
	"bark", "discord", "generic", "gotify", "lark", "matrix", "ntfy", "opsgenie", "pushbullet", "pushover", "slack", "smtp", "teams", "telegram", "zulip",
}

// Title is one line of plain ASCII: it becomes a header of mails.
func Title(n workflows.Notification) string {
	title := "Fairway: " + strings.ReplaceAll(n.Kind, "-", " ")
	for _, of := range []string{n.Cluster, n.Channel} {
		if of != "" {
			title += ", " + of
			break
		}
	}
	title = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, title)
	return title[:min(len(title), 120)]
}

// longestText is what all services show.
const longestText = 1500

// Body is the text and what it is about.
func Body(n workflows.Notification) string {
	text := []rune(n.Text)
	if len(text) > longestText {
		text = append(text[:longestText], '…')
	}
	lines := []string{string(text), ""}
	for _, each := range []struct{ name, value string }{
		{"cluster", n.Cluster}, {"channel", n.Channel}, {"pool", n.Pool}, {"node", n.Node}, {"pod", n.Pod}, {"owner", n.Owner},
	} {
		if each.value != "" {
			lines = append(lines, each.name+": "+each.value)
		}
	}
	if !n.At.IsZero() {
		lines = append(lines, "at: "+n.At.UTC().Format(time.RFC3339))
	}
	return strings.Join(lines, "\n")
}

// answered finds the HTTP status that the library puts into the text of its errors.
var answered = regexp.MustCompile(`(?i)(?:status|status code|response code)[^0-9]{0,12}([1-5][0-9]{2})\b`)

// failed is the error of a route, without the library's text: that may contain the address.
func failed(at string, err error) error {
	var mail *textproto.Error
	switch status := answered.FindStringSubmatch(fmt.Sprint(err)); {
	case err == nil:
		return nil
	case errors.Is(err, errBusy):
		return unreachable(0, "%s: %v", at, errBusy)
	case errors.As(err, &mail) && mail.Code >= 500:
		return invalid("%s: the mail server refuses the notification with code %d; check the address and its sender, recipients and password", at, mail.Code)
	case errors.As(err, &mail):
		return unreachable(0, "%s: the mail server answers with code %d", at, mail.Code)
	case status != nil && status[1][0] == '4' && status[1] != "408" && status[1] != "429":
		return invalid("%s: the service refuses the notification with HTTP status %s; check the address", at, status[1])
	case status != nil:
		return unreachable(0, "%s: the service answers with HTTP status %s", at, status[1])
	}
	return unreachable(0, "%s: the service was not reached or did not take the notification: %s", at, cause(err))
}
