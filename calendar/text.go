package calendar

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} // by time.Weekday

const anytime = "anytime"

// ParseWindows reads windows as config items hold them: "mon-fri 22:00-04:00 Europe/Berlin; sat,sun
// 00:00-24:00 Europe/Berlin". Days and time zone may be left out: every day, UTC. "anytime" stands for
// no windows at all.
func ParseWindows(text string) ([]Window, error) {
	if strings.TrimSpace(text) == anytime {
		return nil, nil
	}
	var windows []Window
	for part := range strings.SplitSeq(text, ";") {
		window, err := parseWindow(part)
		if err != nil {
			return nil, err
		}
		windows = append(windows, window)
	}
	return windows, nil
}

func parseWindow(text string) (Window, error) {
	fields := strings.Fields(text)
	malformed := fmt.Errorf("is %q; must be days, times and time zone such as mon-fri 22:00-04:00 Europe/Berlin, or %s", strings.TrimSpace(text), anytime)
	var w Window
	if len(fields) > 0 && !strings.Contains(fields[0], ":") {
		for part := range strings.SplitSeq(fields[0], ",") {
			first, last, isRange := strings.Cut(part, "-")
			from, to := weekday(first), weekday(last)
			if !isRange {
				to = from
			}
			if from < 0 || to < 0 {
				return Window{}, malformed
			}
			w.Days = append(w.Days, weekdays[from])
			for from != to {
				from = (from + 1) % 7
				w.Days = append(w.Days, weekdays[from])
			}
		}
		fields = fields[1:]
	}
	if len(fields) == 0 || len(fields) > 2 {
		return Window{}, malformed
	}
	w.From, w.To, _ = strings.Cut(fields[0], "-")
	if len(fields) == 2 {
		w.TimeZone = fields[1]
	}
	if _, err := w.read(); err != nil {
		return Window{}, fmt.Errorf("is %q, whose %w", strings.TrimSpace(text), err)
	}
	return w, nil
}

func weekday(name string) int {
	for i, known := range weekdays {
		if known == name {
			return i
		}
	}
	return -1
}

// FormatWindows writes windows so that ParseWindows can read them.
func FormatWindows(windows []Window) string {
	if len(windows) == 0 {
		return anytime
	}
	texts := make([]string, len(windows))
	for i, window := range windows {
		texts[i] = window.String()
	}
	return strings.Join(texts, "; ")
}

// String is the window as ParseWindows reads it.
func (w Window) String() string {
	text := w.From + "-" + w.To
	if len(w.Days) > 0 {
		text = strings.Join(w.Days, ",") + " " + text
	}
	if w.TimeZone != "" {
		text += " " + w.TimeZone
	}
	return text
}

// Check reports what is wrong with windows and freezes, by the path of the field in the calendar,
// such as "windows[0].from".
func (c Calendar) Check(report func(field, format string, args ...any)) {
	for i, window := range c.Windows {
		if _, err := window.read(); err != nil {
			field, text, _ := strings.Cut(err.Error(), " ")
			report(fmt.Sprintf("windows[%d].%s", i, field), "%s", text)
		}
	}
	for i, freeze := range c.Freezes {
		if !freeze.To.After(freeze.From) {
			report(fmt.Sprintf("freezes[%d].to", i), "is %s; must be later than from, which is %s",
				freeze.To.Format(time.RFC3339), freeze.From.Format(time.RFC3339))
		}
	}
}

// read makes sense of a window; the error begins with the name of the field that is wrong.
func (w Window) read() (daily, error) {
	var d daily
	for _, name := range w.Days {
		i := weekday(name)
		if i < 0 {
			return daily{}, fmt.Errorf("days has %q; must be mon, tue, wed, thu, fri, sat or sun", name)
		}
		d.days[i] = true
	}
	if len(w.Days) == 0 {
		d.days = [7]bool{true, true, true, true, true, true, true}
	}
	var ok bool
	if d.from, ok = timeOfDay(w.From); !ok || d.from == day {
		return daily{}, fmt.Errorf("from is %q; must be a time of the day from 00:00 to 23:59", w.From)
	}
	if d.to, ok = timeOfDay(w.To); !ok {
		return daily{}, fmt.Errorf("to is %q; must be a time of the day from 00:00 to 24:00", w.To)
	}
	if d.to <= d.from {
		d.to += day
	}
	zone, err := time.LoadLocation(w.TimeZone)
	if err != nil || w.TimeZone == "Local" { // which would depend on the machine
		return daily{}, fmt.Errorf("time_zone is %q; must be a name of the IANA database such as Europe/Berlin", w.TimeZone)
	}
	d.zone = zone
	return d, nil
}

var clock = regexp.MustCompile(`^([01][0-9]|2[0-4]):([0-5][0-9])$`)

// timeOfDay reads a time such as 22:00 as minutes of the day, of which 24:00 is the last.
func timeOfDay(text string) (int, bool) {
	parts := clock.FindStringSubmatch(text)
	if parts == nil {
		return 0, false
	}
	hour, _ := strconv.Atoi(parts[1])
	minute, _ := strconv.Atoi(parts[2])
	at := hour*60 + minute
	return at, at <= day
}
