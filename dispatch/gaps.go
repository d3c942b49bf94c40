// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"fmt"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// WarnGap is the code of the warning that names what left a gap in the coverage.
const WarnGap = "coverage-gap"

// warnOfGaps says why the inventory may miss something, where the plan rests on
// its being complete.
func (p *Preview) warnOfGaps() {
	gaps := p.Coverage.Gaps
	if len(gaps) == 0 || !slices.ContainsFunc(p.Warnings, func(w plan.Warning) bool { return w.Code == plan.WarnIncomplete }) {
		return
	}
	// The newest: what people can still do something about.
	g := gaps[len(gaps)-1]
	what := map[string]string{
		journal.CauseLost:       "ended without closing, or is cut off from the store",
		journal.CauseBehind:     "was out of touch with the store and is catching up",
		journal.CauseFull:       "could not hold all it recorded",
		journal.CauseStoreLost:  "found that the store had lost its data",
		journal.CauseStoreBack:  "found that the store had gone back in time",
		journal.CauseStoreEvict: "is the policy by which the store may drop data",
	}[g.Cause]
	more := ""
	if len(gaps) > 1 {
		more = fmt.Sprintf(" (the last of %d gaps)", len(gaps))
	}
	p.Warnings = append(p.Warnings, plan.Warning{Code: WarnGap, Message: fmt.Sprintf(
		"since %s sightings may be missing%s: %s %s; 'cftrack coverage' says what closes the gap",
		g.From.UTC().Format(time.RFC3339), more, g.Recorder, what)})
}
