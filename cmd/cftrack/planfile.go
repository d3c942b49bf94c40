// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// planJSON is a plan file, with what it rests on.
type planJSON struct {
	*dispatch.PlanFile
	Coverage  coverageJSON `json:"coverage"`
	FreePaths int          `json:"free_paths"`
	// Saved is what batches of others that are under way made unnecessary.
	Saved journal.Saving `json:"saved"`
	// FollowUps are what is likely to be sent again, beyond the totals.
	FollowUps dispatch.Likely `json:"likely_follow_ups"`
	// Repetition is what --repeat-after adds to the totals; null without.
	Repetition *repetitionJSON `json:"repetition"`
}

type repetitionJSON struct {
	Items int     `json:"items"`
	Price float64 `json:"price"`
}

func repetitionOf(v *dispatch.Preview) *repetitionJSON {
	if !v.Repeats {
		return nil
	}
	return &repetitionJSON{v.Sends() - v.Totals.Items, v.Price() - v.Totals.Price}
}

// inPlanFile are the flags whose part a plan file has.
var inPlanFile = []string{"all", "prefix", "regexp", "tag", "older-than", "seen-since", "exclude", "exact-query", "null",
	"twins", "assume-complete", "only-seen", "exact", "batch", "max-collateral", "max-items", "max-wildcards", "native-tags", "root-object", "explain", "compare"}

// fromFile returns what a plan file says to send.
func (f *invalidateFlags) fromFile(a *app, args []string) (dispatch.Request, error) {
	if len(args) > 0 {
		return dispatch.Request{}, usage("plan-file", "give a SELECTOR or --plan", "the plan file has a selector of its own, and %s was given too", strings.Join(args, " "))
	}
	for _, name := range inPlanFile {
		if a.origins[name].Source == config.FromFlag {
			return dispatch.Request{}, usage("plan-file", "leave it out, or make the plan again with it", "the plan file decides what is sent, and --%s was given too", name)
		}
	}
	r := dispatch.Request{}
	if err := f.checkCounts(); err != nil {
		return r, err
	}
	f.pace(&r)
	file, err := a.readPlanFile(f.plan)
	if err != nil {
		return r, err
	}
	if want := strings.ToLower(f.hash); want != "" {
		if !strings.Contains(want, ":") {
			want = "sha256:" + want
		}
		if sum := file.Sum(); want != sum {
			return r, usage("plan-hash", "send the file that was reviewed, or have this one reviewed", "%s has the hash %s, not %s", f.plan, sum, want)
		}
	}
	if _, known := a.file.Distribution(file.Distribution); a.dist == "" && (known || len(a.file.Distributions) == 0) {
		a.dist = file.Distribution
	}
	r.Plan, r.Selector = file, file.Selector
	return r, nil
}

func (a *app) readPlanFile(name string) (_ *dispatch.PlanFile, err error) {
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, &fault{exit: exitUsage, code: "file", message: err.Error(), hint: "name a plan file, made by 'cftrack plan ... --output json'", cause: err}
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		in = io.Reader(f)
	}
	file, err := dispatch.ReadPlanFile(in)
	if bad, ok := errors.AsType[*dispatch.PlanFileError](err); ok {
		f := planFileFault(bad)
		if name != "-" {
			f.message = name + ": " + strings.TrimPrefix(f.message, "plan file: ")
		}
		return nil, f
	}
	return file, err
}

func planFileFault(e *dispatch.PlanFileError) *fault {
	return &fault{exit: exitUsage, code: "plan-file", message: e.Error(), hint: e.Hint, cause: e}
}

// differs explains why a plan file is not sent.
func (a *app) differs(r *dispatch.Review) error {
	if !a.json() {
		for _, x := range []struct {
			s    dispatch.Sample
			what string
		}{
			{r.Missed, "selected, and reached by no item of the plan"},
			{r.Hit, "reached by the plan, and neither selected nor in its collateral"},
			{r.Beyond, "items that reach further than the inventory can answer for"},
		} {
			if x.s.Count == 0 {
				continue
			}
			fmt.Fprintf(a.stderr, "%s %s:\n", thousands(x.s.Count), x.what)
			for _, p := range x.s.First {
				fmt.Fprintf(a.stderr, "  %s\n", printable(p))
			}
			if more := x.s.Count - len(x.s.First); more > 0 {
				fmt.Fprintf(a.stderr, "  and %s more\n", thousands(more))
			}
		}
	}
	return &fault{exit: exitUndone, code: journal.CodePlanDiffers, message: "the plan no longer fits: " + r.String() + "; nothing was sent",
		hint: remakeHint, differences: r}
}

const remakeHint = "make the plan again with 'cftrack plan ... --output json', review it, and send that"
