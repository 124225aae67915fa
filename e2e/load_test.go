package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLoadIsJudgedByItsErrorsAndItsSize(t *testing.T) {
	settings := Load{ErrorRatio: 0.00001, AtLeast: 1000}
	for _, test := range []struct {
		rule     string
		settings Load
		result   LoadResult
		problem  string
	}{
		{"good answers alone pass", settings, LoadResult{Good: 1000}, ""},
		{"too few answers say nothing", settings, LoadResult{Good: 999}, "Only 999"},
		{"no answers at all fail", settings, LoadResult{}, "Only 0"},
		{"errors within the budget pass", settings, LoadResult{Good: 99_999, Bad: 1}, ""},
		{"one error too many fails", settings, LoadResult{Good: 99_998, Bad: 1}, "1 of 99999 requests failed; 1 in 100000 may"},
		{"errors are named before the size", settings, LoadResult{Good: 1, Bad: 1}, "1 of 2 requests failed"},
		{"a ratio of 0 bears no error", Load{}, LoadResult{Good: 1_000_000, Bad: 1}, "none may"},
		{"a ratio of 1 bears any", Load{ErrorRatio: 1}, LoadResult{Bad: 10}, ""},
		{"seconds away fail nothing by themselves", settings, LoadResult{Good: 1000, Lost: 60}, ""},
	} {
		t.Run(test.rule, func(t *testing.T) {
			problem := test.settings.Judge(test.result)
			require.Equal(t, test.problem == "", problem == "", problem)
			require.Contains(t, problem, test.problem)
		})
	}
}

func TestLoadKeepsSomeErrorsEachOnce(t *testing.T) {
	var r LoadResult
	r.Note("503 Service Unavailable")
	r.Note("503 Service Unavailable")
	r.Note("")
	require.Equal(t, []string{"503 Service Unavailable"}, r.Errors)
	r.Note(strings.Repeat("ü", 1000))
	require.LessOrEqual(t, len(r.Errors[1]), loadErrorLength+len("…"))
	require.Equal(t, strings.ToValidUTF8(r.Errors[1], "?"), r.Errors[1])
	for i := range 100 {
		r.Note(fmt.Sprint(i))
	}
	require.Len(t, r.Errors, MostLoadErrors)
}

func TestASecondAwayThatHasBegunCounts(t *testing.T) {
	var r LoadResult
	r.Away(-time.Second)
	r.Away(0)
	require.Zero(t, r.Lost)
	r.Away(1200 * time.Millisecond)
	require.EqualValues(t, 2, r.Lost)
}
