// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

// mutations are the parts without which the protocol is said not to hold.
var mutations = []mutation{
	{"acknowledgement", "the sweep does not wait for recorders", []edit{{
		"dispatch/sweep.go",
		`			r.holding = append(r.holding, "recorder "+s.Recorder)`,
		`			_ = s.Recorder`,
	}}},
	{"reports", "recorders report nothing", []edit{{
		"loop.go",
		`if k.number > sp.judged && sp.start <= k.until && k.may(e.path) {`,
		`if false && k.number > sp.judged && sp.start <= k.until && k.may(e.path) {`,
	}}},
	{"keeping", "a recorder lets go of a sighting as soon as it is flushed and judged", []edit{{
		"loop.go",
		`over := func(sp span) bool { return sp.flushed && sp.end+drain <= read }`,
		`over := func(sp span) bool { return sp.flushed && (true || sp.end+drain <= read) }`,
	}}},
	{"condition", "what a batch covers is forgotten, however new", []edit{{
		"dispatch/forget.go",
		`	before := b.Sent.Add(-r.inv.Options.Margin - d.clock.Skew())`,
		`	before := d.clock.Now().Add(3600e9)`,
	}}},
	{"atomicity", "the condition is looked at before the clearing, not in it", []edit{{
		"dispatch/forget.go",
		`		_, err := d.journal.Store().Clear(ctx, d.journal.Distribution(), conditions)`,
		`		var held []store.Condition
		for _, c := range conditions {
			for e := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{Prefix: c.Path, Now: d.clock.Now()}) {
				if e.Path == c.Path && e.Last.Before(before) {
					c.Before = d.clock.Now().Add(3600e9)
					held = append(held, c)
				}
			}
		}
		_, err := d.journal.Store().Clear(ctx, d.journal.Distribution(), held)`,
	}}},
	{"reference", "each call has a reference of its own", []edit{{
		"dispatch/call.go",
		`d.cdn.CreateInvalidation(c, d.journal.Distribution(), b.Reference, b.Items)`,
		`d.cdn.CreateInvalidation(c, d.journal.Distribution(), b.Reference+d.opts.Random(), b.Items)`,
	}}},
	{"sent", "a resent batch counts as sent anew", []edit{{
		"dispatch/call.go",
		`		receipt, err = d.cdn.CreateInvalidation(`,
		`		b.Sent = now
		receipt, err = d.cdn.CreateInvalidation(`,
	}}},
	{"barrier", "completion does not wait for the batches of others", []edit{{
		"dispatch/sweep.go",
		`		if b.State == journal.Accepted && r.barrier[b.Reference] {`,
		`		if b.State == journal.Accepted && r.barrier[b.Reference] && b.Invalidation() == r.inv.Number {`,
	}}},
	{"lease", "a dispatcher's writes are not conditional on its lease", []edit{{
		"journal/lease.go",
		`	t.Require = append(t.Require, l.held()...)`,
		``,
	}}},
	{"leader", "every dispatcher takes itself for the leader, and nobody's writes are conditional", []edit{{
		"journal/lease.go",
		`	t.Require = append(t.Require, l.held()...)`,
		``,
	}, {
		"journal/lease.go",
		`	if v != 0 && cur.Holder != holder && now.Before(cur.Until) {`,
		`	if false && v != 0 && cur.Holder != holder && now.Before(cur.Until) {`,
	}}},
	{"holding", "a recorder acknowledges what it still holds something of", []edit{{
		"loop.go",
		`		k.acked = k.acked || !slices.ContainsFunc(holds, func(h hold) bool {`,
		`		k.acked = true || !slices.ContainsFunc(holds, func(h hold) bool {`,
	}}},
	{"dead", "nobody speaks for a recorder that died", []edit{{
		"dispatch/sweep.go",
		`			lost = append(lost, s)`,
		`			_ = lost`,
	}}},
	{"look", "a wildcard is not checked again before it is saved", []edit{{
		"dispatch/send.go",
		`	case !clean:
		r.queued = false`,
		`	case false && !clean:
		r.queued = false`,
	}}},
	{"file-missed", "a plan file is sent though it misses something", []edit{{
		"dispatch/fixed.go",
		`return r.Missed.Count+r.Hit.Count+r.Beyond.Count > 0`,
		`return r.Hit.Count+r.Beyond.Count > 0`,
	}}},
	{"file-hit", "a plan file is sent though it hits something else", []edit{{
		"dispatch/fixed.go",
		`return r.Missed.Count+r.Hit.Count+r.Beyond.Count > 0`,
		`return r.Missed.Count+r.Beyond.Count > 0`,
	}}},
	{"file-late", "what a plan file hits between two batches is sent all the same", []edit{{
		"dispatch/fixed.go",
		`	if len(r.batches) == 0 {
		return d.stop(`,
		`	if len(r.batches) != 0 {
		return nil
	} else {
		return d.stop(`,
	}, {
		"dispatch/send.go",
		`	case !clean:`,
		`	case !clean && r.inv.Fixed == nil:`,
	}}},
	{"file-needless", "what is gone by now is left out of a plan file", []edit{{
		"dispatch/send.go",
		`	exact := l.purges-r.purges != r.others && inv.Fixed == nil // a plan file is sent as it is`,
		`	exact := true`,
	}}},
	{"completed", "what CloudFront has accepted counts as completed", []edit{{
		"dispatch/look.go",
		`at = b.Accepted.Add(d.opts.FirstLook)`,
		`b.State = journal.BatchDone; return`,
	}}},
	{"import-report", "an import reports nothing", []edit{{
		"internal/importer/importer.go",
		`	for len(reports) > 0 {`,
		`	for false && len(reports) > 0 {`,
	}}},
	{"import-ended", "an import opens nothing again", []edit{{
		"internal/importer/importer.go",
		`l.StartAssumed && inv.State.Ended()`,
		`inv.State.Ended()`,
	}}},
	{"import-purged", "what is imported counts as purged though it ended later", []edit{{
		"internal/importer/importer.go",
		`r.history.Settles(s.Path, s.End, r.margin)`,
		`r.history.Settles(s.Path, s.Start.Add(-60e9), r.margin)`,
	}}},
	{"import-under-way", "a purge that is under way counts as completed for logs", []edit{{
		"internal/importer/importer.go",
		`		if r.done.Settles(s.Path, s.End, r.margin) {`,
		`		if true {`,
	}}},
	{"tokens", "what is sent is not paid for", []edit{{
		"dispatch/account.go",
		`		p.take(a, l, calls)
		if count`,
		`		if count`,
	}}},
	{"pushed-back", "what CloudFront has no room for is dropped at its fourth refusal", []edit{{
		"dispatch/call.go",
		`	enough := 3
`,
		`	if at.refusals == 4 {
		return 0, d.replace(ctx, l, r, b, "no room", now, nil)
	}
	enough := 3
`,
	}}},
	{"repetition", "nothing goes out once more", []edit{{
		"dispatch/repeat.go",
		`	if after <= 0 || r.inv.Cancel {
		return true`,
		`	if true {
		return true`,
	}}},
	{"repetition-follow-ups", "follow-ups do not go out once more", []edit{{
		"dispatch/repeat.go",
		`		if !b.Repeat && !b.Purged() ||`,
		`		if b.FollowUp || !b.Repeat && !b.Purged() ||`,
	}}},
	{"repetition-forgets", "what goes out once more is forgotten like anything else", []edit{{
		"dispatch/forget.go",
		`	if b.Repeat {`,
		`	if false {`,
	}}},
}
