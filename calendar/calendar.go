// Package calendar says when something may be done: in windows that repeat by the week, in a time
// zone, and outside of freezes.
package calendar

import "time"

// Window is open on some days of the week between two times of the day.
type Window struct {
	// Days are "mon" to "sun"; none means every day.
	Days []string `yaml:"days" json:"days,omitempty" validate:"dive,oneof=mon tue wed thu fri sat sun"`
	// From and To are times of the day such as "22:00". A window whose end is not after its beginning
	// ends on the next day.
	From string `yaml:"from" json:"from" validate:"required"`
	To   string `yaml:"to" json:"to" validate:"required"`
	// TimeZone is a name of the IANA database such as "Europe/Berlin"; default "UTC".
	TimeZone string `yaml:"time_zone" json:"time_zone,omitempty"`
}

// Freeze is a time in which nothing may be done, whatever the windows say.
type Freeze struct {
	Name string    `yaml:"name" json:"name" validate:"required"`
	From time.Time `yaml:"from" json:"from" validate:"required"`
	To   time.Time `yaml:"to" json:"to" validate:"required"`
}

// Calendar is windows and freezes together. Without windows it is always open outside of freezes.
type Calendar struct {
	Windows []Window
	Freezes []Freeze
}
