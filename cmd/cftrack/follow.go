// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// A follower shows progress on standard error: one line that is rewritten on a
// terminal; elsewhere a line for each change, and none where JSON is wanted.
// Whole lines can be written through it meanwhile.
type follower struct {
	mu    sync.Mutex
	w     io.Writer
	style style
	live  bool
	mute  bool
	last  string
	drawn bool
}

func (a *app) follow() *follower {
	live := terminal(a.stderr)
	return &follower{w: a.stderr, style: a.style(a.stderr), live: live, mute: a.json() && !live}
}

// show is the progress function of Drive.
func (f *follower) show(r *dispatch.Report) {
	line := progress(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute || line == f.last {
		return
	}
	f.last = line
	if !f.live {
		fmt.Fprintln(f.w, line)
		return
	}
	fmt.Fprintf(f.w, "\r\x1b[K%s", f.style.cut(line, f.style.width-1))
	f.drawn = true
}

// Write writes a line above the progress.
func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clear()
	n, err := f.w.Write(p)
	f.last = ""
	return n, err
}

// end takes the progress away.
func (f *follower) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clear()
}

func (f *follower) clear() {
	if f.drawn {
		fmt.Fprint(f.w, "\r\x1b[K")
		f.drawn = false
	}
}

// progress says in a line how far an invalidation is.
func progress(r *dispatch.Report) string {
	accepted, done := 0, 0
	for _, b := range r.Batches {
		switch b.State {
		case journal.Accepted:
			accepted++
		case journal.BatchDone:
			accepted++
			done++
		}
	}
	s := fmt.Sprintf("%s %s", r.ID, r.State)
	switch {
	case r.State == journal.Sending && len(r.Batches) == 0:
		s += ": letting recorders flush"
	case r.State == journal.Sending:
		s += fmt.Sprintf(": %s, %d of %s accepted", count(r.Items, "item", "items"), accepted, count(len(r.Batches), "batch", "batches"))
	case r.State.Ended():
	default:
		s += fmt.Sprintf(": %s, %d of %s processed by every edge", count(r.Items, "item", "items"), done, count(accepted, "batch", "batches"))
	}
	if r.FollowUps > 0 {
		s += ", " + count(r.FollowUps, "follow-up", "follow-ups")
	}
	if len(r.Holding) > 0 {
		s += "; waiting for " + printable(r.Holding[0])
	}
	return s
}

// writeReport writes for people how an invalidation ended, or how far it is.
func writeReport(w io.Writer, r *dispatch.Report) {
	fmt.Fprintf(w, "%s %s: %s in %s, at most %s", r.ID, r.State, count(r.Items, "item", "items"), count(len(r.Batches), "batch", "batches"), dollars(r.Price))
	if r.Ended != nil {
		fmt.Fprintf(w, ", in %s", lasting(r.Ended.Sub(r.Opened).Seconds()))
	}
	fmt.Fprintln(w)
	if r.FollowUps > 0 {
		fmt.Fprintf(w, "  %s for responses that were under way\n", count(r.FollowUps, "item was sent again", "items were sent again"))
	}
	for i, u := range r.Uncovered {
		if i == shownItems {
			fmt.Fprintf(w, "  and %s more not covered\n", thousands(len(r.Uncovered)-i))
			break
		}
		fmt.Fprintf(w, "  not covered: %s (%s)\n", printable(u.Item), printable(whyNot(u.Reason)))
	}
	if r.NotFollowed != "" {
		fmt.Fprintf(w, "  %s\n", printable(r.NotFollowed))
	}
	if len(r.Holding) > 0 {
		fmt.Fprintf(w, "  waiting for %s\n", printable(strings.Join(r.Holding, ", ")))
	}
}
