// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"strings"
	"time"
)

const day = 24 * time.Hour

// A DurationError is a text that is no duration.
type DurationError struct {
	Input, Reason string
}

// DurationHint says what a duration looks like.
const DurationHint = "write a duration such as 90s, 12h, 30d or 1d12h, or a number of seconds"

func (e *DurationError) Error() string { return fmt.Sprintf("%q is %s", e.Input, e.Reason) }

// ParseDuration reads a duration that is not negative: as Go writes them, with
// "d" for days in front ("1d12h"), or a bare number of seconds.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" || strings.ContainsAny(s, "+- ") {
		return 0, &DurationError{s, "no duration"}
	}
	if strings.Trim(s, "0123456789.") == "" {
		s += "s"
	}
	var total time.Duration
	if days, rest, ok := strings.Cut(s, "d"); ok {
		// Hours are as exact as days, and ParseDuration knows their limits.
		d, err := time.ParseDuration(days + "h")
		if err != nil || strings.Trim(days, "0123456789.") != "" {
			return 0, &DurationError{s, "no duration"}
		}
		if d > math.MaxInt64/24 {
			return 0, errLong(s)
		}
		total, s = d*24, rest
		if s == "" {
			return total, nil
		}
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, &DurationError{s, "no duration"}
	case d > math.MaxInt64-total:
		return 0, errLong(s)
	}
	return total + d, nil
}

func errLong(s string) error { return &DurationError{s, "longer than 292 years"} }

// FormatDuration writes a duration as ParseDuration reads it, without zeros at
// its end: "2d", "1d12h", "90s" as "1m30s".
func FormatDuration(d time.Duration) string {
	days := ""
	if d >= day {
		days = fmt.Sprintf("%dd", d/day)
		if d %= day; d == 0 {
			return days
		}
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return days + s
}

// A Duration is the value of a flag. It implements pflag.Value.
type Duration time.Duration

// Set reads the duration.
func (d *Duration) Set(s string) error {
	v, err := ParseDuration(s)
	*d = Duration(v)
	return err
}

// String returns the duration as Set reads it.
func (d *Duration) String() string { return FormatDuration(time.Duration(*d)) }

// Type names the value in help texts.
func (d *Duration) Type() string { return "duration" }

// Forever is the word for a life that ends with a purge.
const Forever = "forever"

// A TTL is the value of a flag: a duration, or [Forever]. The zero value is not
// set. It implements pflag.Value.
type TTL struct {
	Given   bool
	Forever bool
	For     time.Duration
}

// Set reads the TTL.
func (t *TTL) Set(s string) error {
	if s == Forever {
		*t = TTL{Given: true, Forever: true}
		return nil
	}
	d, err := ParseDuration(s)
	if err == nil && d == 0 {
		err = &DurationError{s, "no life at all"}
	}
	if err != nil {
		return err
	}
	*t = TTL{Given: true, For: d}
	return nil
}

// String returns the TTL as Set reads it, "" if it is not given.
func (t *TTL) String() string {
	switch {
	case t.Forever:
		return Forever
	case t.Given:
		return FormatDuration(t.For)
	}
	return ""
}

// Type names the value in help texts.
func (t *TTL) Type() string { return "duration" }
