package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, cmd := range all(root()) {
		require.NotEmpty(t, cmd.Short, cmd.CommandPath())
		require.False(t, strings.HasSuffix(cmd.Short, "."), cmd.CommandPath())
		if cmd.HasSubCommands() {
			continue
		}
		require.Contains(t, cmd.Example, cmd.CommandPath(), "%s needs an example", cmd.CommandPath())
		if strings.Contains(cmd.Use, "CLUSTER") || strings.Contains(cmd.Use, "CHANNEL") {
			require.NotNil(t, cmd.ValidArgsFunction, "%s does not complete", cmd.CommandPath())
		}
	}
}

func TestExamplesAreUnderstood(t *testing.T) {
	quoted := regexp.MustCompile(`"[^"]*"`)
	for _, cmd := range all(root()) {
		for _, line := range strings.Split(strings.ReplaceAll(cmd.Example, "\\\n", ""), "\n") {
			words := strings.Fields(quoted.ReplaceAllString(line, "x"))
			if len(words) == 0 {
				continue
			}
			at := slices.Index(words, "fairway")
			require.GreaterOrEqual(t, at, 0, line)
			found, rest, err := root().Find(words[at+1:])
			require.NoError(t, err, line)
			require.Equal(t, cmd.CommandPath(), found.CommandPath(), line)
			require.NoError(t, found.ParseFlags(rest), line)
			require.NoError(t, found.Args(found, found.Flags().Args()), line)
		}
	}
}

func TestOrdersNeedAReasonBeforeAnythingIsAsked(t *testing.T) {
	for _, args := range [][]string{
		{"cluster", "block", "dev-1"}, {"channel", "block", "dev"}, {"fleet", "block"}, {"cluster", "update", "dev-1"},
		{"cluster", "rollback", "dev-1"}, {"channel", "resume", "dev", "--reason", "  "},
	} {
		cmd := root()
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		var status *statusError
		require.ErrorAs(t, err, &status, args)
		require.Equal(t, exitUsage, status.status)
		require.ErrorContains(t, err, "--reason is missing")
	}
}

func TestABlockLastsForAPositiveTime(t *testing.T) {
	cmd := root()
	cmd.SetArgs([]string{"fleet", "block", "--reason", "r", "--for", "-1h"})
	require.ErrorContains(t, cmd.ExecuteContext(t.Context()), "--for is -1h0m0s; must be a time such as 4h")
}

func TestAVersionIsShortened(t *testing.T) {
	require.Equal(t, "9f2c41d3#aaaaaaaa", shortVersion(newer))
	require.Equal(t, "9f2c41d3", shortVersion(newCommit))
	require.Equal(t, "abc#1", shortVersion("abc#1"))
	require.Empty(t, shortVersion(""))
}

func TestWrongUsageIsToldByTheExitStatus(t *testing.T) {
	for arguments, want := range map[string]string{
		"nonsense":         `"nonsense" is no command of fairway`,
		"clustr list":      "did you mean cluster?",
		"cluster lst":      `"lst" is no command of fairway cluster; did you mean list?`,
		"status extra":     `unknown command "extra"`,
		"channel describe": "usage: fairway channel describe CHANNEL; see `fairway channel describe --help`",
		"registry serve":   "tokens-file",
		"registry serve --tokens-env T --tls-cert c": "tls-key",
		"status --nonsense":                          "unknown flag",
	} {
		cmd := root()
		cmd.SetArgs(strings.Fields(arguments))
		err := cmd.ExecuteContext(t.Context())
		var status *statusError
		require.ErrorAs(t, err, &status, arguments)
		require.Equal(t, exitUsage, status.status, arguments)
		require.ErrorContains(t, err, want)
	}
}

func TestAGroupOfCommandsAloneShowsItsHelp(t *testing.T) {
	for _, arguments := range []string{"", "cluster", "fleet"} {
		cmd := root()
		var out strings.Builder
		cmd.SetOut(&out)
		cmd.SetArgs(strings.Fields(arguments))
		require.NoError(t, cmd.ExecuteContext(t.Context()))
		require.Contains(t, out.String(), "Available Commands:")
	}
}

func TestAProblemDoesNotRepeatWhatItsLineSays(t *testing.T) {
	require.Equal(t, "rendering version 9f2c41d3#aaaaaaaa: manifests/a.yaml:3: wrong", problemText("dev-1", "cluster dev-1: rendering version "+newer+": manifests/a.yaml:3: wrong"))
	require.Equal(t, "cluster dev-10: no answer", problemText("dev-1", "cluster dev-10: no answer"))
}
