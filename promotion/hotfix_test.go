package promotion_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/promotion"
)

func TestWhatAnEarlierChannelHasByContent(t *testing.T) {
	changed := promotion.Touched{Path: "a", Before: "1", After: "2", There: "2", Now: "2"}
	for rule, test := range map[string]struct {
		touched   []promotion.Touched
		samePatch bool
		want      bool
	}{
		"as the commit has left it":                  {touched: []promotion.Touched{changed}, want: true},
		"as before the commit":                       {touched: []promotion.Touched{{Before: "1", After: "2", There: "1", Now: "2"}}},
		"only a part":                                {touched: []promotion.Touched{changed, {Before: "1", After: "2", There: "1", Now: "2"}}},
		"something else":                             {touched: []promotion.Touched{{Before: "1", After: "2", There: "3", Now: "2"}}},
		"something else with the same patch":         {touched: []promotion.Touched{{Before: "1", After: "2", There: "3", Now: "2"}}, samePatch: true, want: true},
		"both are the same now":                      {touched: []promotion.Touched{{Before: "1", After: "2", There: "3", Now: "3"}}, want: true},
		"both are as before, since it was undone":    {touched: []promotion.Touched{{Before: "1", After: "2", There: "1", Now: "1"}}, want: true},
		"a new file":                                 {touched: []promotion.Touched{{After: "2", There: "2", Now: "2"}}, want: true},
		"a new file that is missing":                 {touched: []promotion.Touched{{After: "2", Now: "2"}}},
		"a file that is deleted":                     {touched: []promotion.Touched{{Before: "1"}}, want: true},
		"a file that is still there":                 {touched: []promotion.Touched{{Before: "1", There: "1"}}},
		"a file that was not touched does not count": {touched: []promotion.Touched{{Before: "1", After: "1", There: "3", Now: "4"}}, want: true},
		"nothing touched":                            {want: true},
	} {
		t.Run(rule, func(t *testing.T) {
			require.Equal(t, test.want, promotion.Present(test.touched, test.samePatch))
		})
	}
}

func TestHowALandingGotOntoItsChannel(t *testing.T) {
	for rule, test := range map[string]struct {
		facts promotion.Facts
		want  promotion.Kind
	}{
		"nothing is promoted here":                    {promotion.Facts{Merge: true, New: 3}, promotion.Changed},
		"nothing is promoted here, even by a revert":  {promotion.Facts{Restores: true, New: 1}, promotion.Changed},
		"a merge of what the source has":              {promotion.Facts{Fed: true, Merge: true, Carried: 3}, promotion.Promoted},
		"a pull request that was merged by hand":      {promotion.Facts{Fed: true, Merge: true, Carried: 3, PullRequest: true}, promotion.Promoted},
		"a branch that was set forward to the source": {promotion.Facts{Fed: true, Carried: 1}, promotion.Promoted},
		"a merge of both":                             {promotion.Facts{Fed: true, Merge: true, Carried: 3, New: 1}, promotion.Mixed},
		"a merge of both that claims to be a revert":  {promotion.Facts{Fed: true, Merge: true, Carried: 3, New: 1, Restores: true}, promotion.Mixed},
		"a promotion that claims to be a revert":      {promotion.Facts{Fed: true, Merge: true, Carried: 3, Restores: true}, promotion.Promoted},
		"a merge of something new":                    {promotion.Facts{Fed: true, Merge: true, New: 2}, promotion.Hotfix},
		"a pull request that was squashed":            {promotion.Facts{Fed: true, New: 1, PullRequest: true}, promotion.Hotfix},
		"a push":                                      {promotion.Facts{Fed: true, New: 1}, promotion.Direct},
		"a merge that brings nothing":                 {promotion.Facts{Fed: true, Merge: true}, promotion.Direct},
		"a commit that restores a landing":            {promotion.Facts{Fed: true, New: 1, Restores: true}, promotion.Reverted},
		"a pull request that restores a landing":      {promotion.Facts{Fed: true, Merge: true, New: 1, Restores: true, PullRequest: true}, promotion.Reverted},
	} {
		t.Run(rule, func(t *testing.T) { require.Equal(t, test.want, promotion.KindOf(test.facts)) })
	}
}
