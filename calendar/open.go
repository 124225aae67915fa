package calendar

import (
	"fmt"
	"slices"
	"time"
	_ "time/tzdata" // a container may come without the time zones that windows are written in
)

// OpenAt says whether something may be done at a time, and otherwise why not, in words that a
// sentence can end with. What counts for a window is what a clock on the wall of its time zone shows:
// an hour that is left out in spring is in no window, one that comes twice in autumn is in it twice.
// The beginning of a window or freeze belongs to it, the end does not. A window that cannot be read
// (see Check) is never open.
func (c Calendar) OpenAt(t time.Time) (open bool, reason string) {
	return c.resolve().openAt(t)
}

// NextOpening is the earliest time, t or later, at which the calendar is open; false if there is
// none, which is so only where no window can be read.
func (c Calendar) NextOpening(t time.Time) (time.Time, bool) {
	hours := c.resolve()
	// The calendar opens where a window or the hour after a change of the clocks begins, or where a
	// freeze ends. Only those need a look, from t and from the end of each freeze: with no freeze ahead
	// every window opens within days.
	var moments []time.Time
	for _, from := range append([]time.Time{t}, hours.ends(t)...) {
		moments = append(moments, from)
		for _, w := range hours.windows {
			moments = append(moments, w.beginnings(from)...)
		}
	}
	slices.SortFunc(moments, time.Time.Compare)
	for _, moment := range moments {
		if moment.Before(t) {
			continue
		}
		if open, _ := hours.openAt(moment); open {
			return moment, true
		}
	}
	return time.Time{}, false
}

// hours is a calendar whose windows have been read.
type hours struct {
	Calendar
	windows []daily
}

// daily is a window that has been read. Times are in minutes of the day; to is up to 24 h after from.
type daily struct {
	days     [7]bool // by time.Weekday, of the day on which the window begins
	from, to int
	zone     *time.Location
}

const day = 24 * 60 // minutes

func (c Calendar) resolve() hours {
	h := hours{Calendar: c}
	for _, window := range c.Windows {
		if d, err := window.read(); err == nil {
			h.windows = append(h.windows, d)
		}
	}
	return h
}

func (h hours) openAt(t time.Time) (bool, string) {
	var until time.Time
	name := ""
	for _, freeze := range h.Freezes {
		if freeze.holds(t) && freeze.To.After(until) {
			name, until = freeze.Name, freeze.To
		}
	}
	switch {
	case !until.IsZero():
		return false, fmt.Sprintf("freeze %q holds until %s", name, until.Format(time.RFC3339))
	case len(h.Windows) == 0, slices.ContainsFunc(h.windows, func(w daily) bool { return w.shows(t) }):
		return true, ""
	default:
		return false, fmt.Sprintf("no maintenance window is open (%s)", FormatWindows(h.Windows))
	}
}

func (f Freeze) holds(t time.Time) bool { return !t.Before(f.From) && t.Before(f.To) }

// ends are the ends of the freezes that are not over at t.
func (h hours) ends(t time.Time) []time.Time {
	var ends []time.Time
	for _, freeze := range h.Freezes {
		if freeze.To.After(t) {
			ends = append(ends, freeze.To)
		}
	}
	return ends
}

// shows says whether the clock of the window's zone is within the window.
func (d daily) shows(t time.Time) bool {
	local := t.In(d.zone)
	now, today := local.Hour()*60+local.Minute(), local.Weekday()
	yesterday := (today + 6) % 7
	return d.days[today] && d.from <= now && now < d.to || d.days[yesterday] && now+day < d.to
}

// beginnings are the moments in the days from t at which the window may begin to be open, and some
// others.
func (d daily) beginnings(t time.Time) []time.Time {
	var moments []time.Time
	local := t.In(d.zone)
	// A window of a single weekday begins within a week, or in the week after if the clocks leave it out.
	// That of yesterday opens again if the clocks go back to before its end.
	for ahead := -1; ahead < 15; ahead++ {
		if !d.days[(int(local.Weekday())+ahead+7)%7] {
			continue
		}
		year, month, date := local.Date()
		begin := time.Date(year, month, date+ahead, d.from/60, d.from%60, 0, 0, d.zone)
		// A time that the clocks show twice, or not at all, is what time.Date makes of it; the zone's
		// other offsets around give the rest of what it may mean.
		_, offset := begin.Zone()
		before, after := begin.Add(-day*time.Minute), begin.Add(day*time.Minute)
		for _, other := range []time.Time{before, begin, after} {
			_, shifted := other.Zone()
			moments = append(moments, begin.Add(time.Duration(offset-shifted)*time.Second))
		}
		_, change := before.ZoneBounds()
		if !change.IsZero() && change.Before(after) {
			moments = append(moments, change)
		}
	}
	return moments
}
