package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
)

// bucketOf is a bucket with objects. Without any it refuses access.
func bucketOf(t *testing.T, objects map[string]string) e2e.Account {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		content, found := objects[key]
		switch {
		case objects == nil:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
		case r.URL.Query().Get("list-type") == "2":
			type contents struct{ Key string }
			var all []contents
			for key := range objects {
				if strings.HasPrefix(key, r.URL.Query().Get("prefix")) {
					all = append(all, contents{key})
				}
			}
			_ = xml.NewEncoder(w).Encode(struct {
				XMLName  xml.Name `xml:"ListBucketResult"`
				Contents []contents
			}{Contents: all})
		case found:
			fmt.Fprint(w, content)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_PROFILE": "",
	} {
		t.Setenv(name, value)
	}
	return e2e.Account{Account: "aws:123456789012", Region: "eu-central-1"}
}

func TestTheLogOfASuiteIsShownWithoutWhatATerminalWouldObey(t *testing.T) {
	account := bucketOf(t, map[string]string{
		"e2e/12/abc/smoke/log": "\x1b[31mred\u202e\n\tfine ü\n", "e2e/12/abc/smoke/junit.xml": "<testsuite/>",
		"e2e/12/abc/silent/junit.xml": "<testsuite/>",
	})
	var out bytes.Buffer
	require.NoError(t, showLogs(t.Context(), &out, account, []whereFiles{{"smoke", "s3://bucket/e2e/12/abc/smoke/"}}))
	require.Equal(t, "[31mred\n\tfine ü\n", out.String())
	require.ErrorContains(t, showLogs(t.Context(), &out, account, []whereFiles{{"silent", "s3://bucket/e2e/12/abc/silent/"}}), "has no log")
	for _, address := range []string{"", "s3://bucket", "https://bucket/e2e/"} {
		require.ErrorContains(t, showLogs(t.Context(), &out, account, []whereFiles{{"smoke", address}}), "no address in S3", address)
	}
	account = bucketOf(t, nil)
	require.ErrorContains(t, showLogs(t.Context(), &out, account, []whereFiles{{"smoke", "s3://bucket/e2e/12/abc/smoke/"}}), "needs credentials that may read the bucket in account aws:123456789012")
}

func TestFilesOfATestAreFetchedOnceAndOverwriteNothing(t *testing.T) {
	account := bucketOf(t, map[string]string{"e2e/12/abc/report.json": "{}", "e2e/12/abc/smoke/log": "fine", "e2e/12/abc/smoke/attempt-2/log": "better"})
	test := e2e.Report{Account: account, Results: "s3://bucket/e2e/12/abc/"}
	smoke := whereFiles{"smoke", "s3://bucket/e2e/12/abc/smoke/"}
	into := filepath.Join(t.TempDir(), "a", "b")
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	cmd.SetContext(t.Context())
	c := &cli{output: "table"}
	require.NoError(t, c.downloadFiles(cmd, test, []whereFiles{{"the test", test.Results}, smoke}, into))
	require.Contains(t, out.String(), "3 files fetched to "+into)
	for name, content := range map[string]string{"report.json": "{}", "smoke/log": "fine", "smoke/attempt-2/log": "better"} {
		got, err := os.ReadFile(filepath.Join(into, name))
		require.NoError(t, err)
		require.Equal(t, content, string(got))
	}
	err := c.downloadFiles(cmd, test, []whereFiles{smoke}, into)
	require.ErrorContains(t, err, "is there already")
	requireStatus(t, exitUsage, err)
}

func TestNoNameLeadsOutOfTheFolder(t *testing.T) {
	test := e2e.Report{Account: bucketOf(t, map[string]string{"e2e/12/abc/../../../escaped": "x"}), Results: "s3://bucket/e2e/12/abc/"}
	parent := t.TempDir()
	cmd := &cobra.Command{}
	cmd.SetContext(t.Context())
	require.Error(t, (&cli{}).downloadFiles(cmd, test, []whereFiles{{"the test", test.Results}}, filepath.Join(parent, "a", "b", "c")))
	require.NoFileExists(t, filepath.Join(parent, "escaped"))
	require.NoFileExists(t, filepath.Join(parent, "a", "escaped"))
}
