// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
)

// TestCoverageAccept has a directory in which a recorder was killed, one lost what
// did not fit, and one runs.
func TestCoverageAccept(t *testing.T) {
	env := testEnv(t)
	dir := t.TempDir()
	env = append(env, "CFTRACK_STORE=file:"+dir)
	st, err := filestore.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(st, "E1")
	now := time.Now().Truncate(time.Second)
	for id, opened := range map[string]time.Time{"killed": now.Add(-time.Hour), "running": now} {
		s := &journal.Session{ID: id, Recorder: "web " + id, Lease: 10 * time.Minute, Longest: time.Hour}
		if err := j.OpenSession(t.Context(), s, opened); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.PutGaps(t.Context(), journal.Gap{ID: "full-1", From: now.Add(-time.Hour), Until: now.Add(-time.Minute), Cause: journal.CauseFull, Recorder: "web"}); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	type gap struct {
		ID, Cause string
		ClosesAt  *time.Time `json:"closes_at"`
		Closing   []string
		Accepted  *acceptedGap
	}
	coverage := func() (c struct{ Gaps, Accepted []gap }) {
		t.Helper()
		code, stdout, stderr := invoke(t, env, "", "coverage", "--output", "json")
		if code != 0 {
			t.Fatal(code, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := coverage()
	if len(c.Gaps) != 2 || len(c.Accepted) != 0 || c.Gaps[0].ID != "full-1" || c.Gaps[1].ID != "killed" {
		t.Fatalf("%+v", c)
	}
	for _, g := range c.Gaps {
		if g.ClosesAt == nil || !strings.Contains(strings.Join(g.Closing, "\n"), "cftrack coverage accept "+g.ID) {
			t.Errorf("what closes %s: %+v", g.ID, g)
		}
	}

	for _, tc := range []struct {
		args   []string
		code   int
		errors string
	}{
		{[]string{"accept"}, exitUsage, `"code":"arguments"`},
		{[]string{"accept", "killed"}, exitUsage, `"code":"reason"`},
		{[]string{"accept", "killed", "--reason", " "}, exitUsage, `"code":"reason"`},
		{[]string{"accept", "other", "--reason", "x"}, exitFailed, `the gaps are full-1, killed`},
		{[]string{"accept", "running", "--reason", "x"}, exitFailed, `"code":"live"`},
		{[]string{"accept", journal.CauseStoreEvict, "--reason", "x"}, exitFailed, `"code":"standing"`},
		{[]string{"except", "killed"}, exitUsage, `"code":"arguments"`},
	} {
		code, stdout, stderr := invoke(t, env, "", append([]string{"coverage", "--output", "json"}, tc.args...)...)
		if code != tc.code || stdout != "" || !strings.Contains(stderr, tc.errors) {
			t.Errorf("%v: exit %d, %s%s", tc.args, code, stdout, stderr)
		}
	}
	for i, id := range []string{"killed", "full-1", "killed"} {
		code, stdout, stderr := invoke(t, env, "", "coverage", "accept", id, "--reason", "the <machine> is gone", "--output", "json")
		var out acceptJSON
		if err := json.Unmarshal([]byte(stdout), &out); err != nil || code != 0 {
			t.Fatal(code, err, stderr)
		}
		if out.ID != id || out.gapJSON.Accepted == nil || out.gapJSON.Accepted.Reason != "the <machine> is gone" ||
			out.AlreadyAccepted != (i == 2) || len(out.Coverage.Gaps) != max(0, 1-i) {
			t.Errorf("%s: %s", id, stdout)
		}
	}
	if c := coverage(); len(c.Gaps) != 0 || len(c.Accepted) != 2 || c.Accepted[0].Accepted.By == "" {
		t.Errorf("%+v", c)
	}
	_, stdout, _ := invoke(t, env, "", "coverage")
	if !strings.Contains(stdout, "2 gaps were accepted") || strings.Contains(stdout, "machine") {
		t.Errorf("%s", stdout)
	}
	_, stdout, _ = invoke(t, env, "", "coverage", "-v")
	if strings.Count(stdout, "the <machine> is gone") != 2 {
		t.Errorf("%s", stdout)
	}
}
