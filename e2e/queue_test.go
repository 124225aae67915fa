package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/e2e"
)

func TestPlacesAreGivenInTurn(t *testing.T) {
	first, second := e2e.Account{Account: "aws:1", Region: "eu", Limit: 1}, e2e.Account{Account: "aws:2", Region: "eu", Limit: 1}
	at := func(minute int) time.Time { return time.Unix(int64(60*minute), 0) }
	waits := func(minute int) e2e.Entry { return e2e.Entry{Since: at(minute)} }
	hotfix := func(minute int) e2e.Entry { return e2e.Entry{Since: at(minute), Hotfix: true} }
	has := func(account e2e.Account) e2e.Entry { return e2e.Entry{Given: &account} }
	in := func(account e2e.Account) e2e.Place { return e2e.Place{Given: &account} }
	place := func(n int) e2e.Place { return e2e.Place{Place: n} }
	unlimited := e2e.Account{Account: "aws:1", Region: "eu"}
	other := e2e.Account{Account: "aws:1", Region: "us", Limit: 1}
	for rule, c := range map[string]struct {
		accounts []e2e.Account
		queue    []e2e.Entry
		want     []e2e.Place
	}{
		"nobody waits":                          {[]e2e.Account{first}, nil, []e2e.Place{}},
		"without accounts everybody waits":      {nil, []e2e.Entry{waits(1), waits(2)}, []e2e.Place{place(1), place(2)}},
		"the preferred account first":           {[]e2e.Account{first, second}, []e2e.Entry{waits(1), waits(2), waits(3)}, []e2e.Place{in(first), in(second), place(1)}},
		"who has waited longest first":          {[]e2e.Account{first}, []e2e.Entry{waits(3), waits(1), waits(2)}, []e2e.Place{place(2), in(first), place(1)}},
		"who came first, if it is the same":     {[]e2e.Account{first}, []e2e.Entry{waits(1), waits(1)}, []e2e.Place{in(first), place(1)}},
		"hotfixes before everybody":             {[]e2e.Account{first}, []e2e.Entry{waits(1), hotfix(9), hotfix(8)}, []e2e.Place{place(2), place(1), in(first)}},
		"nobody loses a place to a hotfix":      {[]e2e.Account{first}, []e2e.Entry{has(first), hotfix(9)}, []e2e.Place{in(first), place(1)}},
		"a lower limit takes no place away":     {[]e2e.Account{first}, []e2e.Entry{has(unlimited), has(unlimited), waits(1)}, []e2e.Place{in(unlimited), in(unlimited), place(1)}},
		"a place in an account that is gone":    {[]e2e.Account{second}, []e2e.Entry{has(first), waits(1)}, []e2e.Place{in(first), in(second)}},
		"2 where no limit is set":               {[]e2e.Account{unlimited}, []e2e.Entry{waits(1), waits(2), waits(3)}, []e2e.Place{in(unlimited), in(unlimited), place(1)}},
		"regions of an account have their own":  {[]e2e.Account{first, other}, []e2e.Entry{has(first), waits(1)}, []e2e.Place{in(first), in(other)}},
		"what is given back is given to others": {[]e2e.Account{first, second}, []e2e.Entry{has(second), waits(1), waits(2)}, []e2e.Place{in(second), in(first), place(1)}},
	} {
		t.Run(rule, func(t *testing.T) {
			require.Equal(t, c.want, e2e.Places(c.accounts, c.queue))
		})
	}
}
