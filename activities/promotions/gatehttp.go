package promotions

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"

	"github.com/fairway-project/fairway/promotion"
	"github.com/fairway-project/fairway/prose"
)

// longAnswer is how much of an answer is looked at, in bytes.
const longAnswer = 1 << 20

func (a *Activities) httpGate(ctx context.Context, gate promotion.HTTPGate, edge promotion.Edge, candidate string) (passed bool, detail, lasting string) {
	want := cmp.Or(gate.Status, http.StatusOK)
	lasting = fmt.Sprintf("must answer with %d", want)
	unreadable := func(err error) (bool, string, string) {
		return false, fmt.Sprintf("It cannot be asked: %v.", err), "it cannot be asked"
	}
	address, err := filledURL(gate.URL, edge, candidate)
	if err != nil {
		return unreadable(err)
	}
	token, err := readToken(gate.TokenEnv, gate.TokenFile)
	if err != nil {
		return unreadable(err)
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(gate.Timeout, gateWithin))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return unreadable(errors.New("url is no address"))
	}
	request.Header.Set("User-Agent", "fairway")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{
		// Whoever the answer points at shall not get the token, nor answer in the place of the one asked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if err != nil {
		if outer := (*url.Error)(nil); errors.As(err, &outer) {
			err = outer.Err // the address may hold what is nobody's business
		}
		return unreadable(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != want {
		return false, fmt.Sprintf("It answers with %d; must be %d.", answer.StatusCode, want), lasting
	}
	if gate.Contains == "" {
		return true, fmt.Sprintf("It answers with %d.", want), lasting
	}
	lasting += " and a text"
	body, err := io.ReadAll(io.LimitReader(answer.Body, longAnswer))
	if err != nil {
		return unreadable(fmt.Errorf("its answer ends too early: %w", err))
	}
	if !bytes.Contains(body, []byte(gate.Contains)) {
		return false, fmt.Sprintf("It answers with %d, but without %q.", want, prose.Line(gate.Contains, prose.Title)), lasting
	}
	return true, fmt.Sprintf("It answers with %d and %q.", want, prose.Line(gate.Contains, prose.Title)), lasting
}

// filled puts a promotion into the placeholders of a text, each written as it has to be there.
func filled(text string, edge promotion.Edge, candidate string, escape func(string) string) string {
	return strings.NewReplacer("{from}", escape(edge.From), "{to}", escape(edge.To), "{candidate}", escape(candidate)).Replace(text)
}

// filledURL does so with an address.
func filledURL(address string, edge promotion.Edge, candidate string) (string, error) {
	before, query, has := strings.Cut(address, "?")
	before = filled(before, edge, candidate, url.PathEscape)
	if has {
		before += "?" + filled(query, edge, candidate, url.QueryEscape)
	}
	parsed, err := url.Parse(before)
	switch {
	case err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		return "", errors.New("url is no http address with these channels in it") // not shown, since it may hold a secret
	case parsed.User != nil:
		return "", errors.New("url has credentials in it; name them by token_env or token_file")
	}
	return before, nil
}

// inQuery writes a text within a string of PromQL: signs that could end the string, in whichever quotes
// it is, are written as numbers.
func inQuery(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./", r)):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// readToken reads a token whenever it is used, so that it can be changed.
func readToken(env, file string) (string, error) {
	var token, where string
	switch {
	case env != "":
		token, where = os.Getenv(env), "token_env: the environment variable "+env
	case file != "":
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("token_file: %w", err)
		}
		token, where = string(content), "token_file: "+file
	default:
		return "", nil
	}
	token = strings.TrimSpace(token)
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("%s holds no token", where)
	}
	return token, nil
}
