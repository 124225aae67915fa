package e2e

import (
	"cmp"
	"slices"
	"time"
)

// Entry is a test that waits for a place, or has one.
type Entry struct {
	Hotfix bool
	Since  time.Time
	// Given is where it may make its cluster; nil while it waits.
	Given *Account
}

// Place is what becomes of a test in the queue: its place, from 1, or where it may make its cluster.
type Place struct {
	Place int
	Given *Account
}

// Places says for each test of a queue, in the order in which they came, what its place is now. Hotfixes come first,
// then who has waited longest. The first account that has room is taken. Whoever has a place keeps it, whatever
// becomes of the limits.
func Places(accounts []Account, queue []Entry) []Place {
	places, waiting, taken := make([]Place, len(queue)), []int{}, map[Account]int{}
	for i, test := range queue {
		if test.Given == nil {
			waiting = append(waiting, i)
			continue
		}
		places[i].Given = test.Given
		taken[where(*test.Given)]++
	}
	slices.SortStableFunc(waiting, func(a, b int) int {
		if queue[a].Hotfix != queue[b].Hotfix {
			return map[bool]int{true: -1, false: 1}[queue[a].Hotfix]
		}
		return queue[a].Since.Compare(queue[b].Since)
	})
	place := 0
	for _, i := range waiting {
		if account := withRoom(accounts, taken); account != nil {
			places[i].Given = account
			taken[where(*account)]++
			continue
		}
		place++
		places[i].Place = place
	}
	return places
}

func withRoom(accounts []Account, taken map[Account]int) *Account {
	for _, account := range accounts {
		if taken[where(account)] < cmp.Or(account.Limit, DefaultLimit) {
			return &account
		}
	}
	return nil
}

// where is an account without its limit, which may have been another one when a place was given.
func where(account Account) Account { return Account{Account: account.Account, Region: account.Region} }

// DefaultLimit is how many test clusters there may be in an account at a time, where nothing else is configured.
const DefaultLimit = 2
