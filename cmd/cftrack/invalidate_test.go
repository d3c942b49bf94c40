// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// TestEnding: every way an invalidation can end has its exit code, and whoever
// can go on is told how.
func TestEnding(t *testing.T) {
	refused := []journal.Refusal{{Item: "/~x", Remedy: "/*"}}
	for _, c := range []struct {
		name   string
		report dispatch.Report
		err    error
		exit   int
		code   string
		hint   string
	}{
		{"completed", dispatch.Report{State: journal.Completed}, nil, exitDone, "", ""},
		{"accepted", dispatch.Report{State: journal.Propagating}, nil, exitDone, "", ""},
		{"partial", dispatch.Report{State: journal.Partial, Uncovered: refused}, nil, exitUndone, "uncovered", "'/*'"},
		{"failed", dispatch.Report{State: journal.Failed, Code: "AccessDenied"}, nil, exitFailed, "AccessDenied", "cftrack resume inv-1"},
		{"too dear", dispatch.Report{State: journal.Failed, Code: WarnPrice}, nil, exitUndone, WarnPrice, "--max-price"},
		{"cancelled", dispatch.Report{State: journal.Cancelled}, nil, exitUndone, "cancelled", "cftrack status inv-1"},
		{"undone", dispatch.Report{State: journal.Sweeping}, fmt.Errorf("%w: waits", dispatch.ErrUndone), exitUndone, "undone", "cftrack resume inv-1"},
		{"lost", dispatch.Report{State: journal.Sending}, fmt.Errorf("%w: inv-1: %w", dispatch.ErrGone, journal.ErrNotFound), exitUndone, "store-lost-data", "invalidate the same again"},
		{"interrupted", dispatch.Report{State: journal.Sending}, context.Canceled, exitUndone, "interrupted", "cftrack resume inv-1"},
		{"store away", dispatch.Report{}, &store.Error{Op: "list", Err: store.ErrUnavailable, Hint: "start it"}, exitUndone, "store-unavailable", "start it; go on with: cftrack resume inv-1"},
	} {
		err := ending("inv-1", &c.report, c.err)
		if c.exit == exitDone {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if f := explain(err); f.exit != c.exit || f.code != c.code || !strings.Contains(f.hint, c.hint) {
			t.Errorf("%s: exit %d, code %q, hint %q", c.name, f.exit, f.code, f.hint)
		}
	}
}
