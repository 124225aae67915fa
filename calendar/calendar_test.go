package calendar_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/calendar"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	moment, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return moment
}

func windows(t *testing.T, text string) []calendar.Window {
	t.Helper()
	parsed, err := calendar.ParseWindows(text)
	require.NoError(t, err)
	return parsed
}

func TestWhenACalendarIsOpenAndOpensNext(t *testing.T) {
	for rule, c := range map[string]struct {
		windows string
		freezes [][2]string
		now     string
		next    string // the same as now where it is open
	}{
		"without windows at any time":         {"anytime", nil, "2026-05-06T12:00:00Z", "2026-05-06T12:00:00Z"},
		"in the window":                       {"10:00-12:00", nil, "2026-05-06T10:30:00Z", "2026-05-06T10:30:00Z"},
		"the beginning belongs to it":         {"10:00-12:00", nil, "2026-05-06T10:00:00Z", "2026-05-06T10:00:00Z"},
		"the end does not":                    {"10:00-12:00", nil, "2026-05-06T12:00:00Z", "2026-05-07T10:00:00Z"},
		"before it":                           {"10:00-12:00", nil, "2026-05-06T09:59:59Z", "2026-05-06T10:00:00Z"},
		"only on its days":                    {"mon-wed 10:00-12:00", nil, "2026-05-07T10:30:00Z", "2026-05-11T10:00:00Z"},
		"days may go round the week":          {"sat-mon 10:00-12:00", nil, "2026-05-05T10:30:00Z", "2026-05-09T10:00:00Z"},
		"in its time zone":                    {"10:00-12:00 America/New_York", nil, "2026-05-06T10:30:00Z", "2026-05-06T14:00:00Z"},
		"days are those of the zone":          {"mon 06:00-07:00 Australia/Lord_Howe", nil, "2026-06-05T00:00:00Z", "2026-06-07T19:30:00Z"},
		"over midnight":                       {"fri 22:00-04:00", nil, "2026-05-09T03:59:00Z", "2026-05-09T03:59:00Z"},
		"over midnight from its day only":     {"fri 22:00-04:00", nil, "2026-05-08T03:00:00Z", "2026-05-08T22:00:00Z"},
		"over midnight into a new week":       {"sat 22:00-04:00", nil, "2026-05-10T01:00:00Z", "2026-05-10T01:00:00Z"},
		"to the end of the day":               {"sat,sun 00:00-24:00", nil, "2026-05-10T23:59:59Z", "2026-05-10T23:59:59Z"},
		"and no further":                      {"sat,sun 00:00-24:00", nil, "2026-05-11T00:00:00Z", "2026-05-16T00:00:00Z"},
		"from a time to the same is a day":    {"sat 06:00-06:00", nil, "2026-05-10T05:59:00Z", "2026-05-10T05:59:00Z"},
		"the window that is open counts":      {"mon 10:00-12:00; wed 10:00-12:00", nil, "2026-05-06T11:00:00Z", "2026-05-06T11:00:00Z"},
		"the window that opens first counts":  {"mon 10:00-12:00; fri 10:00-12:00", nil, "2026-05-06T11:00:00Z", "2026-05-08T10:00:00Z"},
		"a freeze holds without windows":      {"anytime", [][2]string{{"2026-05-06T00:00:00Z", "2026-05-08T00:00:00Z"}}, "2026-05-06T00:00:00Z", "2026-05-08T00:00:00Z"},
		"a freeze to come does not":           {"anytime", [][2]string{{"2026-05-07T00:00:00Z", "2026-05-08T00:00:00Z"}}, "2026-05-06T00:00:00Z", "2026-05-06T00:00:00Z"},
		"a freeze that ends in a window":      {"10:00-12:00", [][2]string{{"2026-05-06T00:00:00Z", "2026-05-06T11:00:00Z"}}, "2026-05-06T10:30:00Z", "2026-05-06T11:00:00Z"},
		"a freeze that ends outside of one":   {"10:00-12:00", [][2]string{{"2026-05-06T00:00:00Z", "2026-07-01T13:00:00+02:00"}}, "2026-05-06T10:30:00Z", "2026-07-01T11:00:00Z"},
		"freezes that overlap hold as one":    {"anytime", [][2]string{{"2026-05-06T00:00:00Z", "2026-05-08T00:00:00Z"}, {"2026-05-07T00:00:00Z", "2026-05-10T00:00:00Z"}}, "2026-05-06T12:00:00Z", "2026-05-10T00:00:00Z"},
		"freezes that meet hold as one":       {"anytime", [][2]string{{"2026-05-06T00:00:00Z", "2026-05-08T00:00:00Z"}, {"2026-05-08T00:00:00Z", "2026-05-10T00:00:00Z"}}, "2026-05-06T12:00:00Z", "2026-05-10T00:00:00Z"},
		"between two freezes":                 {"wed 10:00-12:00", [][2]string{{"2026-05-01T00:00:00Z", "2026-05-14T00:00:00Z"}, {"2026-05-15T00:00:00Z", "2026-05-22T00:00:00Z"}}, "2026-05-06T11:00:00Z", "2026-05-27T10:00:00Z"},
		"a freeze of a thousand years":        {"wed 10:00-12:00", [][2]string{{"2026-05-01T00:00:00Z", "3026-05-01T00:00:00Z"}}, "2026-05-06T11:00:00Z", "3026-05-03T10:00:00Z"},
		"Berlin: begins in the hour left out": {"sun 02:30-04:00 Europe/Berlin", nil, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"}, // 03:00 CEST
		"Berlin: ends in the hour left out":   {"sun 01:30-02:30 Europe/Berlin", nil, "2026-03-29T00:59:00Z", "2026-03-29T00:59:00Z"},
		"Berlin: and is closed after it":      {"sun 01:30-02:30 Europe/Berlin", nil, "2026-03-29T01:00:00Z", "2026-04-04T23:30:00Z"},
		"Berlin: within the hour left out":    {"sun 02:15-02:45 Europe/Berlin", nil, "2026-03-28T12:00:00Z", "2026-04-05T00:15:00Z"},
		"Berlin: begins in the hour repeated": {"sun 02:30-04:00 Europe/Berlin", nil, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		"Berlin: which is outside once more":  {"sun 02:30-04:00 Europe/Berlin", nil, "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"},
		"Berlin: over the hour left out":      {"sat 22:00-04:00 Europe/Berlin", nil, "2026-03-29T01:59:00Z", "2026-03-29T01:59:00Z"},
		"Berlin: up to four on the wall":      {"sat 22:00-04:00 Europe/Berlin", nil, "2026-03-29T02:00:00Z", "2026-04-04T20:00:00Z"},
		"Berlin: a night of seven hours":      {"sat 22:00-04:00 Europe/Berlin", nil, "2026-10-25T02:59:00Z", "2026-10-25T02:59:00Z"},
		"New York: the hour left out":         {"sun 02:00-03:00 America/New_York", nil, "2026-03-08T06:00:00Z", "2026-03-15T06:00:00Z"},
		"New York: the hour repeated":         {"sun 01:00-02:00 America/New_York", nil, "2026-11-01T06:59:00Z", "2026-11-01T06:59:00Z"},
		"New York: and is closed after it":    {"sun 01:00-02:00 America/New_York", nil, "2026-11-01T07:00:00Z", "2026-11-08T06:00:00Z"},
		"Lord Howe: half an hour left out":    {"sun 02:15-05:00 Australia/Lord_Howe", nil, "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z"}, // 02:30+11
		"Lord Howe: half an hour repeated":    {"sun 01:45-02:00 Australia/Lord_Howe", nil, "2026-04-04T15:00:00Z", "2026-04-04T15:15:00Z"}, // the second one
		"Lord Howe: the first of the two":     {"sun 01:45-02:00 Australia/Lord_Howe", nil, "2026-04-04T12:00:00Z", "2026-04-04T14:45:00Z"},
		"Beirut: midnight left out":           {"sun 00:00-02:00 Asia/Beirut", nil, "2026-03-28T12:00:00Z", "2026-03-28T22:00:00Z"}, // 01:00 EEST
	} {
		t.Run(rule, func(t *testing.T) {
			c0 := calendar.Calendar{Windows: windows(t, c.windows)}
			for i, freeze := range c.freezes {
				c0.Freezes = append(c0.Freezes, calendar.Freeze{Name: fmt.Sprint("freeze ", i), From: at(t, freeze[0]), To: at(t, freeze[1])})
			}
			next, ok := c0.NextOpening(at(t, c.now))
			require.True(t, ok)
			require.Equal(t, at(t, c.next).UTC(), next.UTC())
			open, reason := c0.OpenAt(at(t, c.now))
			require.Equal(t, c.now == c.next, open)
			require.Equal(t, open, reason == "")
		})
	}
}

// What is found by looking at a few moments has to be what a look at every quarter of an hour finds.
func TestNextOpeningIsTheFirstMomentThatIsOpen(t *testing.T) {
	for _, zone := range []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Havana", "Antarctica/Troll"} {
		for _, hours := range []string{"02:30-04:00", "sun 02:15-02:45", "sat,sun 00:00-24:00", "mon-fri 22:00-04:00", "sun 00:30-00:45", "sat 23:30-01:00", "sat 23:30-00:30"} {
			c := calendar.Calendar{Windows: windows(t, hours+" "+zone)}
			// Around both changes of clocks in either hemisphere.
			for _, begin := range []string{"2026-03-07T00:00:00Z", "2026-03-27T00:00:00Z", "2026-04-03T00:00:00Z", "2026-10-02T00:00:00Z", "2026-10-23T00:00:00Z", "2026-10-31T00:00:00Z"} {
				moment := at(t, begin)
				next, ok := c.NextOpening(moment)
				for range 4 * 24 * 4 {
					require.True(t, ok)
					open, _ := c.OpenAt(moment)
					require.Equal(t, open, !next.After(moment), "%s %s at %s, next %s", hours, zone, moment, next)
					if moment = moment.Add(15 * time.Minute); open {
						next, ok = c.NextOpening(moment)
					}
				}
			}
		}
	}
}

func TestWhyACalendarIsClosed(t *testing.T) {
	c := calendar.Calendar{
		Windows: windows(t, "sat,sun 00:00-24:00 Europe/Berlin; mon 22:00-04:00"),
		Freezes: []calendar.Freeze{
			{Name: "sale", From: at(t, "2026-11-23T00:00:00+01:00"), To: at(t, "2026-12-01T00:00:00+01:00")},
			{Name: "peak", From: at(t, "2026-11-27T00:00:00+01:00"), To: at(t, "2026-11-28T00:00:00+01:00")},
		},
	}
	for now, want := range map[string]string{
		"2026-11-28T12:00:00Z": `freeze "sale" holds until 2026-12-01T00:00:00+01:00`,
		"2026-11-27T12:00:00Z": `freeze "sale" holds until 2026-12-01T00:00:00+01:00`,
		"2026-12-02T12:00:00Z": "no maintenance window is open (sat,sun 00:00-24:00 Europe/Berlin; mon 22:00-04:00)",
	} {
		_, reason := c.OpenAt(at(t, now))
		require.Equal(t, want, reason)
	}
}

func TestWindowsThatCannotBeReadAreNeverOpen(t *testing.T) {
	c := calendar.Calendar{Windows: []calendar.Window{{From: "25:00", To: "26:00"}}}
	_, ok := c.NextOpening(at(t, "2026-05-06T12:00:00Z"))
	require.False(t, ok)
	open, _ := c.OpenAt(at(t, "2026-05-06T12:00:00Z"))
	require.False(t, open)
}

func TestWindowsAsText(t *testing.T) {
	for text, want := range map[string][]calendar.Window{
		"anytime":                           nil,
		"22:00-04:00":                       {{From: "22:00", To: "04:00"}},
		" mon  00:00-24:00 ":                {{Days: []string{"mon"}, From: "00:00", To: "24:00"}},
		"fri-sun,tue 22:00-04:00 Etc/GMT+5": {{Days: []string{"fri", "sat", "sun", "tue"}, From: "22:00", To: "04:00", TimeZone: "Etc/GMT+5"}},
		"mon 01:00-02:00;tue 01:00-02:00 Europe/Berlin": {
			{Days: []string{"mon"}, From: "01:00", To: "02:00"}, {Days: []string{"tue"}, From: "01:00", To: "02:00", TimeZone: "Europe/Berlin"}},
	} {
		require.Equal(t, want, windows(t, text))
		require.Equal(t, want, windows(t, calendar.FormatWindows(want)))
	}
	const form = "; must be days, times and time zone such as mon-fri 22:00-04:00 Europe/Berlin, or anytime"
	for text, want := range map[string]string{
		"":                              `is ""` + form,
		"22:00-04:00;":                  `is ""` + form,
		"mon":                           `is "mon"` + form,
		"monday 22:00-04:00":            `is "monday 22:00-04:00"` + form,
		"mon- 22:00-04:00":              `is "mon- 22:00-04:00"` + form,
		"mon 22:00-04:00 UTC or so":     `is "mon 22:00-04:00 UTC or so"` + form,
		"22:00":                         `is "22:00", whose to is ""; must be a time of the day from 00:00 to 24:00`,
		"24:00-04:00":                   `is "24:00-04:00", whose from is "24:00"; must be a time of the day from 00:00 to 23:59`,
		"22:00-24:01":                   `is "22:00-24:01", whose to is "24:01"; must be a time of the day from 00:00 to 24:00`,
		"22:00-4:00":                    `is "22:00-4:00", whose to is "4:00"; must be a time of the day from 00:00 to 24:00`,
		"22:00-04:00 Local":             `whose time_zone is "Local"; must be a name of the IANA database such as Europe/Berlin`,
		"22:00-04:00 ../../etc/passwd":  `whose time_zone is "../../etc/passwd"`,
		"22:00-04:00 Europe/Königsberg": `whose time_zone is "Europe/Königsberg"`,
	} {
		_, err := calendar.ParseWindows(text)
		require.ErrorContains(t, err, want)
	}
}

func TestWhatIsWrongWithACalendarIsToldByField(t *testing.T) {
	var told []string
	calendar.Calendar{
		Windows: []calendar.Window{{From: "10:00", To: "12:00"}, {From: "10", To: "12:00"}, {From: "10:00", To: "12:00", TimeZone: "Mars"}, {Days: []string{"Mon"}}},
		Freezes: []calendar.Freeze{{From: at(t, "2026-05-06T12:00:00Z"), To: at(t, "2026-05-06T12:00:00Z")}},
	}.Check(func(field, format string, args ...any) { told = append(told, field+": "+fmt.Sprintf(format, args...)) })
	require.Equal(t, []string{
		`windows[1].from: is "10"; must be a time of the day from 00:00 to 23:59`,
		`windows[2].time_zone: is "Mars"; must be a name of the IANA database such as Europe/Berlin`,
		`windows[3].days: has "Mon"; must be mon, tue, wed, thu, fri, sat or sun`,
		`freezes[0].to: is 2026-05-06T12:00:00Z; must be later than from, which is 2026-05-06T12:00:00Z`,
	}, told)
}
