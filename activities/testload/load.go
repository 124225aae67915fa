package testload

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tsenart/vegeta/v12/lib"
	"go.temporal.io/sdk/activity"

	"github.com/fairway-project/fairway/activities"
	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/workflows"
)

// bodyLimit is how much of an answer is kept for as long as it is looked at.
const bodyLimit = 64 << 10

// urls are the configured ones, for a cluster.
func (a *Activities) urls(cluster string) ([]string, error) {
	var out []string
	for _, each := range a.Load.URLs {
		filled := ofCluster(each, cluster)
		parsed, err := url.Parse(filled)
		if err != nil || parsed.Host == "" || (parsed.Scheme != "http" && parsed.Scheme != "https") {
			return nil, invalid("e2e.load.urls: %q is no http:// or https:// address", filled)
		}
		out = append(out, filled)
	}
	if len(out) > 0 && (a.Load.Rate <= 0 || a.Load.Timeout <= 0) {
		return nil, invalid("e2e.load: rate and timeout have to be above 0")
	}
	return out, nil
}

// held is what a load heartbeats: the counts, and when they were right.
type held struct {
	Result e2e.LoadResult `json:"result"`
	At     time.Time      `json:"at"`
}

// tally is a result that grows.
type tally struct {
	mu   sync.Mutex
	held held
}

func (t *tally) now() any {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.held
	out.Result.Errors = slices.Clone(out.Result.Errors)
	out.At = time.Now()
	return out
}

func (t *tally) add(r *vegeta.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Code >= 200 && r.Code < 400 && r.Error == "" {
		t.held.Result.Good++
		return
	}
	t.held.Result.Bad++
	t.held.Result.Note(complaint(r.Code, r.Error, r.Body))
}

// complaint is what is wrong with an answer; of its body only the first line is shown, as it may be anything.
func complaint(code uint16, problem string, body []byte) string {
	if code == 0 {
		return problem
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", code, http.StatusText(int(code)), line), ": ")
}

// HoldLoad implements workflows.TestWorkloads. Requests are sent at a constant rate whether or not those before
// have been answered: a cluster that answers slowly is not spared.
func (a *Activities) HoldLoad(ctx context.Context, in workflows.OnTestCluster) (e2e.LoadResult, error) {
	urls, err := a.urls(in.Cluster)
	if err != nil || len(urls) == 0 {
		return e2e.LoadResult{}, err
	}
	var t tally
	if before, found := remembered[held](ctx); found {
		t.held = before
		t.held.Result.Problem = ""
		if !before.At.IsZero() {
			t.held.Result.Away(time.Since(before.At))
		}
	}
	activity.RecordHeartbeat(ctx, t.now())
	working, end := activities.Working(ctx, t.now)
	defer end()

	// Redirects are answers: following them would load hosts that nobody has named.
	attacker := vegeta.NewAttacker(vegeta.Redirects(vegeta.NoFollow), vegeta.MaxBody(bodyLimit), vegeta.Timeout(a.Load.Timeout),
		vegeta.MaxWorkers(uint64(float64(a.Load.Rate)*a.Load.Timeout.Seconds())+10), vegeta.Connections(a.Load.Rate+10))
	answers := attacker.Attack(targets(urls), vegeta.Rate{Freq: a.Load.Rate, Per: time.Second}, 0, in.Cluster)
	stop := context.AfterFunc(working, func() { attacker.Stop() })
	defer stop()
	for open := true; open && !stopping(working); { // after a cancel, until those that are under way have come
		var answer *vegeta.Result
		select {
		case answer, open = <-answers:
			if open {
				t.add(answer)
			}
		case <-activity.GetWorkerStopChannel(ctx):
			<-working.Done()
		}
	}
	last := t.now().(held)
	if stopping(working) {
		activity.RecordHeartbeat(ctx, last)
		go func() {
			for range answers { // else its goroutines wait for ever
			}
		}()
		return last.Result, activities.ErrStopping
	}
	last.Result.Problem = a.Load.Judge(last.Result)
	return last.Result, nil
}

func targets(urls []string) vegeta.Targeter {
	var out []vegeta.Target
	for _, each := range urls {
		out = append(out, vegeta.Target{Method: http.MethodGet, URL: each, Header: http.Header{"User-Agent": {"fairway-e2e"}}})
	}
	return vegeta.NewStaticTargeter(out...)
}

// AwaitLoad implements workflows.TestWorkloads: of several addresses each has to have given a good answer.
func (a *Activities) AwaitLoad(ctx context.Context, in workflows.OnTestCluster) error {
	urls, err := a.urls(in.Cluster)
	if err != nil || len(urls) == 0 {
		return err
	}
	began := since(ctx)
	var say saying
	ctx, end := activities.Working(ctx, func() any { return waiting{Since: began, For: say.get()} })
	defer end()
	client := &http.Client{Timeout: a.Load.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for {
		var why string
		urls = slices.DeleteFunc(urls, func(each string) bool {
			problem := ask(ctx, client, each)
			if problem != "" {
				why = fmt.Sprintf("%s: %s", each, problem)
			}
			return problem == ""
		})
		if len(urls) == 0 {
			return nil
		}
		say.set(why)
		if time.Since(began) > a.Load.AnswersWithin {
			return unhealthy("cluster %s: the load has no good answer after %s: %s; check e2e.load.urls and what serves them", in.Cluster, a.Load.AnswersWithin, why)
		}
		if err := pause(ctx, retryEvery); err != nil {
			return err
		}
	}
}

// ask says what is wrong with an answer; empty if it is a good one.
func ask(ctx context.Context, client *http.Client, address string) string {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err.Error()
	}
	request.Header.Set("User-Agent", "fairway-e2e")
	response, err := client.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, bodyLimit))
	var result e2e.LoadResult // cuts what is too long
	switch {
	case err != nil:
		result.Note("reading the answer: " + err.Error())
	case response.StatusCode < 200 || response.StatusCode >= 400:
		result.Note(complaint(uint16(response.StatusCode), "", body))
	default:
		return ""
	}
	return result.Errors[0]
}

// saying is a text that another goroutine heartbeats.
type saying struct {
	mu   sync.Mutex
	text string
}

func (s *saying) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func (s *saying) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}
