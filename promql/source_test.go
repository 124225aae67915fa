package promql_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promql"
)

// says answers every question alike, and keeps the last one.
func says(t *testing.T, code int, body string) (url string, last *http.Request) {
	last = new(http.Request)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		*last = *r
		if code == http.StatusFound {
			w.Header().Set("Location", body)
		}
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return server.URL, last
}

const empty = `{"status":"success","data":{"resultType":"vector","result":[]}}`

func TestTheTokenGoesToPrometheusAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(file, []byte("of a file\n"), 0o600))
	t.Setenv("FAIRWAY_TEST_TOKEN", " of the environment\n")
	url, last := says(t, http.StatusOK, empty)
	for token, source := range map[string]promql.Source{
		"":                          {URL: url + "/prefix/"},
		"Bearer of a file":          {URL: url + "/prefix", TokenFile: file},
		"Bearer of the environment": {URL: url + "/prefix", TokenEnv: "FAIRWAY_TEST_TOKEN"},
	} {
		series, err := source.Query(t.Context(), "up == 0")
		require.NoError(t, err)
		require.Empty(t, series)
		require.Equal(t, "/prefix/api/v1/query", last.URL.Path)
		require.Equal(t, "up == 0", last.Form.Get("query"))
		require.Equal(t, "10s", last.Form.Get("timeout"))
		require.Equal(t, token, last.Header.Get("Authorization"))
	}

	elsewhere, stolen := says(t, http.StatusOK, empty)
	url, _ = says(t, http.StatusFound, elsewhere)
	_, err := promql.Source{URL: url, TokenFile: file}.Query(t.Context(), "up")
	require.ErrorContains(t, err, "302")
	require.Empty(t, stolen.Method)
}

func TestNoErrorTellsASecret(t *testing.T) {
	t.Setenv("FAIRWAY_TEST_TOKEN", "s3cret")
	for name, url := range map[string]string{
		"the address":     "http://anna:s3cret@127.0.0.1:1/s3cret?s3cret",
		"a wrong address": "http://s3cret:x\x7f",
	} {
		_, err := promql.Source{URL: url}.Query(t.Context(), "up")
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "s3cret", name)
	}
	for _, body := range []string{`{"status":"error","errorType":"bad_data","error":"s3cret"}`, `{"status":"error","errorType":"execution","error":"s3cret"}`} {
		url, _ := says(t, http.StatusBadRequest, body)
		_, err := promql.Source{URL: url, TokenEnv: "FAIRWAY_TEST_TOKEN"}.Query(t.Context(), "up")
		require.ErrorContains(t, err, "(token)")
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestWhatIsNoWholeAnswerIsAnError(t *testing.T) {
	unusable := filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(unusable, []byte("\n"), 0o600))
	for name, test := range map[string]struct {
		code    int
		body    string
		source  promql.Source
		field   string
		message string
	}{
		"a bad query":         {http.StatusBadRequest, `{"status":"error","errorType":"bad_data","error":"parse error"}`, promql.Source{}, "query", "parse error"},
		"a number":            {http.StatusOK, `{"status":"success","data":{"resultType":"scalar","result":[1700000000,"0"]}}`, promql.Source{}, "query", "its result is a scalar; must be an instant vector"},
		"a range":             {http.StatusOK, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, promql.Source{}, "query", "its result is a matrix; must be an instant vector"},
		"no token file":       {http.StatusOK, empty, promql.Source{TokenFile: "/none"}, "token_file", "open /none: no such file or directory"},
		"an empty token file": {http.StatusOK, empty, promql.Source{TokenFile: unusable}, "token_file", unusable + " is empty"},
		"an unset variable":   {http.StatusOK, empty, promql.Source{TokenEnv: "FAIRWAY_TEST_UNSET"}, "token_env", "the environment variable FAIRWAY_TEST_UNSET is empty"},
		"no address":          {0, "", promql.Source{URL: ":"}, "url", "is no address of a Prometheus"},
		"nobody there":        {0, "", promql.Source{URL: "http://127.0.0.1:1"}, "", "connection refused"},
		"an overload":         {http.StatusServiceUnavailable, "busy", promql.Source{}, "", "503"},
		"a page":              {http.StatusOK, "<html>", promql.Source{}, "", "bad_response"},
		"an error as success": {http.StatusOK, `{"status":"error","errorType":"internal","error":"no"}`, promql.Source{}, "", "internal: no"},
		"no data":             {http.StatusOK, `{"status":"success"}`, promql.Source{}, "", "the answer has no result in it"},
		"null":                {http.StatusOK, `null`, promql.Source{}, "", "the answer has no result in it"},
		"null data":           {http.StatusOK, `{"status":"success","data":null}`, promql.Source{}, "", "the answer has no result in it"},
		"a null sample":       {http.StatusOK, `{"status":"success","data":{"resultType":"vector","result":[null]}}`, promql.Source{}, "", "the answer has no result in it"},
		"a part":              {http.StatusOK, strings.Replace(empty, "{", `{"warnings":["no store matched"],`, 1), promql.Source{}, "", "may be incomplete: no store matched"},
		"too much":            {http.StatusOK, empty + strings.Repeat(" ", 8<<20), promql.Source{}, "", "too long: more than 8 MiB"},
		"a long error":        {http.StatusBadRequest, `{"status":"error","errorType":"execution","error":"` + strings.Repeat("x", 1<<20) + `"}`, promql.Source{}, "", "execution: xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.source.URL == "" {
				test.source.URL, _ = says(t, test.code, test.body)
			}
			_, err := test.source.Query(t.Context(), "up")
			require.ErrorContains(t, err, test.message)
			require.Less(t, len(err.Error()), 600)
			var wrong *promql.FieldError
			if test.field == "" {
				require.NotErrorAs(t, err, &wrong)
				return
			}
			require.ErrorAs(t, err, &wrong)
			require.Equal(t, promql.FieldError{Field: test.field, Problem: test.message}, *wrong)
		})
	}
}

func TestAdviceOnAQueryIsNoError(t *testing.T) {
	url, _ := says(t, http.StatusOK, strings.Replace(empty, "{", `{"infos":["x"],"warnings":["PromQL info: metric might not be a counter"],`, 1))
	_, err := promql.Source{URL: url}.Query(t.Context(), "rate(x[5m])")
	require.NoError(t, err)
}

func TestAQuestionEnds(t *testing.T) {
	silent := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-silent }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(silent) })
	_, err := promql.Source{URL: server.URL, Timeout: 20 * time.Millisecond}.Query(t.Context(), "up")
	require.ErrorContains(t, err, "exceeded")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = promql.Source{URL: server.URL}.Query(ctx, "up")
	require.ErrorContains(t, err, "canceled")
}
