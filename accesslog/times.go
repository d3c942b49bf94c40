// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"math"
	"strconv"
	"time"
)

// dates remembers the last day it has read: the lines of a log share it.
type dates struct {
	text [20]byte
	size int
	unix int64 // its midnight
}

func (d *dates) known(text []byte) bool { return d.size > 0 && string(d.text[:d.size]) == string(text) }

func (d *dates) keep(text []byte, unix int64) {
	d.size = copy(d.text[:], text)
	d.unix = unix
}

// iso reads "2006-01-02" and "15:04:05", in UTC, as nanoseconds since 1970.
func (d *dates) iso(date, clock []byte) (int64, bool) {
	if !d.known(date) {
		if len(date) != 10 || date[4] != '-' || date[7] != '-' {
			return 0, false
		}
		unix, ok := midnight(date[:4], number(date[5:7]), date[8:])
		if !ok {
			return 0, false
		}
		d.keep(date, unix)
	}
	sec, ok := ofDay(clock)
	return (d.unix + sec) * int64(time.Second), ok
}

// common reads "02/Jan/2006:15:04:05 -0700".
func (d *dates) common(b []byte) (int64, bool) {
	if len(b) != 26 || b[11] != ':' || b[20] != ' ' {
		return 0, false
	}
	if date := b[:11]; !d.known(date) {
		if date[2] != '/' || date[6] != '/' {
			return 0, false
		}
		unix, ok := midnight(date[7:], month(date[3:6]), date[:2])
		if !ok {
			return 0, false
		}
		d.keep(date, unix)
	}
	sec, ok := ofDay(b[12:20])
	zone := int64(number(b[22:24])*3600 + number(b[24:])*60)
	if !ok || number(b[22:24]) < 0 || number(b[24:]) < 0 {
		return 0, false
	}
	switch b[21] {
	case '+':
		sec -= zone
	case '-':
		sec += zone
	default:
		return 0, false
	}
	return (d.unix + sec) * int64(time.Second), true
}

// midnight refuses years before 1970 and those beyond what nanoseconds in 64
// bits can say.
func midnight(year []byte, month int, day []byte) (int64, bool) {
	y, d := number(year), number(day)
	if y < 1970 || y > 2261 || month < 1 || month > 12 || d < 1 {
		return 0, false
	}
	t := time.Date(y, time.Month(month), d, 0, 0, 0, 0, time.UTC)
	return t.Unix(), t.Day() == d
}

func month(b []byte) int {
	for m := time.January; m <= time.December; m++ {
		if m.String()[:3] == string(b) {
			return int(m)
		}
	}
	return 0
}

// ofDay reads "15:04:05"; 60 is a leap second.
func ofDay(b []byte) (int64, bool) {
	if len(b) != 8 || b[2] != ':' || b[5] != ':' {
		return 0, false
	}
	h, m, s := number(b[:2]), number(b[3:5]), number(b[6:])
	return int64(h*3600 + m*60 + s), h >= 0 && h < 24 && m >= 0 && m < 60 && s >= 0 && s <= 60
}

// number reads up to nine digits and nothing else; -1 if it is not that.
func number(b []byte) int {
	if len(b) == 0 || len(b) > 9 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// decimal reads a number of units, such as "1700000000.123" seconds, as
// nanoseconds, truncating. False is no such number, one below 0, or one out of
// range. The unit is a power of ten of nanoseconds.
func decimal(b []byte, unit time.Duration) (int64, bool) {
	// Digit by digit, since a float cannot hold nanoseconds since 1970.
	if ns, ok := digits(b, unit); ok {
		return ns, true
	}
	if len(b) > 40 {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(b), 64)
	f *= float64(unit)
	if err != nil || !(f >= 0 && f < maxNano) {
		return 0, false
	}
	return int64(f), true
}

// maxNano leaves room to add and subtract.
const maxNano = math.MaxInt64 / 2

func digits(b []byte, unit time.Duration) (ns int64, ok bool) {
	fraction := false
	for _, c := range b {
		switch {
		case c == '.' && !fraction:
			fraction = true
		case c < '0' || c > '9':
			return 0, false
		case fraction && unit == 1: // below a nanosecond
		case ns > maxNano/10:
			return 0, false
		default:
			ns, ok = ns*10+int64(c-'0'), true
			if fraction {
				unit /= 10
			}
		}
	}
	if ns > maxNano/int64(unit) {
		return 0, false
	}
	return ns * int64(unit), ok
}
