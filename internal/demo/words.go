// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"time"
)

// shownItems is how many items of the plan are shown.
const shownItems = 8

func (d *Demo) say(format string, args ...any) { fmt.Fprintf(d.o.Out, format+"\n", args...) }

// title begins a step of the story.
func (d *Demo) title(what string) {
	d.step++
	d.say("\n%d. %s  (%.1f s)", d.step, what, time.Since(d.began).Seconds())
}

// proves says what a step has shown.
func (d *Demo) proves(format string, args ...any) { d.say("=> "+format, args...) }

// progress shows how far something is, by the caller's means or in four lines.
func (d *Demo) progress(what string, total int) Bar {
	switch {
	case what == "":
		return quarters{}
	case d.o.Progress != nil:
		return d.o.Progress(what, total)
	}
	return quarters{d, what, total}
}

type quarters struct {
	d     *Demo
	what  string
	total int
}

// Set implements Bar.
func (q quarters) Set(done int) {
	if q.d == nil {
		return
	}
	if n := done * 4 / q.total; n > (done-1)*4/q.total {
		q.d.say("  %s: %s of %s", q.what, thousands(done), thousands(q.total))
	}
}

// End implements Bar.
func (quarters) End() {}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// dollars writes a price, of which half a cent is the smallest part.
func dollars(v float64) string { return fmt.Sprintf("$%.3f", v) }
