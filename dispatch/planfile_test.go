// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// planFile makes a plan file and reads it back.
func (w *world) planFile(r dispatch.Request) *dispatch.PlanFile {
	w.t.Helper()
	return readBack(w.t, w.written(r))
}

func (w *world) written(r dispatch.Request) []byte {
	w.t.Helper()
	d := w.dispatcher()
	p, err := d.Plan(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := d.PlanFile(w.t.Context(), r, p)
	if err != nil {
		w.t.Fatal(err)
	}
	data, err := json.Marshal(f)
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

func readBack(t *testing.T, data []byte) *dispatch.PlanFile {
	t.Helper()
	f, err := dispatch.ReadPlanFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func prefix(p string) dispatch.Request {
	return dispatch.Request{Selector: selector.Selector{Prefixes: []string{p}}, AssumeComplete: true}
}

func (w *world) allSent() []string {
	var all []string
	for _, s := range w.sent() {
		all = append(all, s...)
	}
	slices.Sort(all)
	return all
}

func TestAPlanFileIsSentAsItStands(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/b/1", "/b/2", "/b/", "/x", "/y?q=1", "/y~")
		r := prefix("/b/")
		r.Selector.Patterns = []string{"/b*", "/y*"}
		r.Selector.Prefixes = []string{"/b", "/y"}
		f := w.planFile(r)
		want(t, "uncovered", len(f.Uncovered), 0)
		time.Sleep(20 * time.Hour)
		w.recordAt(time.Now(), "/b/2")
		p, err := w.dispatcher().Plan(t.Context(), dispatch.Request{Plan: f})
		if err != nil || p.Review.Differs() || p.Review.Sighted.Count != 1 || p.Review.Sighted.First[0] != "/b/2" || p.Totals.Items != len(f.Items) {
			t.Fatalf("%+v, %v", p.Review, err)
		}
		rep := w.invalidate(dispatch.Request{Plan: f})
		want(t, "state", rep.State, journal.Completed)
		var items []string
		for _, it := range f.Items {
			items = append(items, it.Item.String())
		}
		slices.Sort(items)
		want(t, "sent", w.allSent(), items)
		want(t, "left", w.paths(), []string{"/x"})
		if !rep.Cut.After(f.Cut.Add(19 * time.Hour)) {
			t.Errorf("the cut %v is that of the plan", rep.Cut)
		}
	})
}

// What a plan file says is compared with what is there when it is sent.
func TestAPlanFileThatNoLongerFitsIsNotSent(t *testing.T) {
	day := selector.Duration(24 * time.Hour)
	for _, c := range []struct {
		name    string
		request dispatch.Request
		between func(*world)
		says    string
	}{
		{"selected since", prefix("/b/"), func(w *world) { w.record("/b/2/new") }, ""}, // the wildcard reaches it
		{"selected elsewhere since", dispatch.Request{Selector: selector.Selector{Regexps: []string{"b"}}, AssumeComplete: true},
			func(w *world) { w.record("/c/b") }, "misses 1 selected entry, /c/b"},
		{"many", dispatch.Request{Selector: selector.Selector{Regexps: []string{"b"}}, AssumeComplete: true},
			func(w *world) { w.record("/c/b", "/d/b", "/e/b") }, "misses 3 selected entries, such as /c/b"},
		{"hit since", dispatch.Request{Selector: selector.Selector{Regexps: []string{"b/.$"}}, AssumeComplete: true},
			func(w *world) { w.record("/b/other") }, "also hits /b/other"},
		{"named, and more under it", pattern("/b/*"), func(w *world) { w.record("/b/other") }, ""},
		{"the directory itself", prefix("/b/"), func(w *world) { w.record("/b/") }, "misses 1 selected entry, /b/"},
		{"older by now", dispatch.Request{Selector: selector.Selector{OlderThan: []selector.Duration{day}}},
			func(*world) { time.Sleep(24 * time.Hour) }, "misses"},
		{"seen since", dispatch.Request{Selector: selector.Selector{SeenSince: []selector.Duration{day}}},
			func(*world) { time.Sleep(24 * time.Hour) }, "also hits"},
		{"gone", pattern("/b/1", "/b/2"), func(w *world) { time.Sleep(72 * time.Hour) }, ""},
		{"nothing", prefix("/nothing"), func(*world) {}, ""},
	} {
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/b/1", "/b/2", "/x")
			f := w.planFile(c.request)
			c.between(w)
			p, err := w.dispatcher().Plan(t.Context(), dispatch.Request{Plan: f})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Review.String(); !strings.Contains(got, c.says) || (got == "") != (c.says == "") || p.Review.Differs() != (c.says != "") {
				t.Errorf("%s: says %q", c.name, got)
			}
			rep := w.invalidate(dispatch.Request{Plan: f})
			if c.says == "" {
				want(t, c.name, rep.State, journal.Completed)
				want(t, c.name, len(w.allSent()), len(f.Items))
				return
			}
			want(t, c.name, rep.State, journal.Failed)
			want(t, c.name, rep.Code, journal.CodePlanDiffers)
			want(t, c.name, w.allSent(), nil)
			// It is over: resuming does not change what was asked for.
			if inv, err := w.dispatcher().Journal().Reopen(t.Context(), rep.ID); err != nil || inv.State != journal.Failed {
				t.Errorf("%s: reopened: %v, %v", c.name, inv.State, err)
			}
		})
	}
}

// Wildcards that nobody typed rest on a complete inventory, then and now.
func TestAPlanFileNeedsTheCoverageItWasMadeWith(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/b/1", "/b/2", "/b/3", "/x")
		f := w.planFile(prefix("/b/"))
		f.Options.AssumeComplete = false
		p, err := w.dispatcher().Plan(t.Context(), dispatch.Request{Plan: f})
		if err != nil {
			t.Fatal(err)
		}
		want(t, "says", p.Review.String(), "it reaches with /b/* beyond what the inventory can answer for")
		want(t, "state", w.invalidate(dispatch.Request{Plan: f}).State, journal.Failed)

		f.Options.AssumeComplete = true
		d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Scope: []string{"/other/*"}})
		if p, err = d.Plan(t.Context(), dispatch.Request{Plan: f}); err != nil || p.Review.Beyond.Count != 1 {
			t.Errorf("out of scope: %+v, %v", p.Review, err)
		}
	})
}

// A dispatcher is killed before each of its writes in turn; another sends the rest
// of the plan, although the inventory says otherwise by then.
func TestAPlanFileIsResumedAsItStands(t *testing.T) {
	for n := int64(1); ; n++ {
		finished := false
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a", "/b", "/c", "/d", "/e")
			r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"^/[abcd]"}}, Batch: 1, AssumeComplete: true}
			f := w.planFile(r)
			inv, err := w.dispatcher().Open(t.Context(), dispatch.Request{Plan: f})
			if err != nil {
				t.Fatal(err)
			}
			st := &dying{Store: w.st}
			st.left.Store(n)
			rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			batches, e := w.dispatcher().Journal().Batches(t.Context(), inv.Number)
			if e != nil {
				t.Fatal(e)
			}
			if err == nil {
				finished = true
			} else if !errors.Is(err, errKilled) {
				t.Fatal(err)
			} else {
				if len(batches) > 0 {
					// A response from after the cut on a path that is selected and not planned.
					w.recordAt(time.Now(), "/a/new")
				}
				if rep, err = w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil {
					t.Fatal(err)
				}
			}
			want(t, fmt.Sprintf("killed at write %d", n), rep.State, journal.Completed)
			want(t, fmt.Sprintf("killed at write %d: billed", n), w.allSent(), []string{"/a", "/b", "/c", "/d"})
		})
		if finished {
			if n < 12 {
				t.Errorf("only %d writes", n)
			}
			return
		}
	}
}

// After the first batch, an item that by now reaches what nobody selected is left
// out and named; the others are sent.
func TestAPlanFileThatStopsFittingHalfWay(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/b/3", "/c/1", "/c/2", "/c/3", "/x")
		f := w.planFile(dispatch.Request{Selector: selector.Selector{Regexps: []string{"^/[abc]/[0-9]"}}, Batch: 1, AssumeComplete: true})
		want(t, "items", len(f.Items), 3)
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && items[0] == "/a/*" {
				w.recordAt(time.Now(), "/b/other")
			}
			return nil
		})
		rep := w.invalidate(dispatch.Request{Plan: f})
		want(t, "state", rep.State, journal.Partial)
		want(t, "sent", w.allSent(), []string{"/a/*", "/c/*"})
		if len(rep.Uncovered) != 1 || rep.Uncovered[0].Item != "/b/*" {
			t.Errorf("uncovered: %+v", rep.Uncovered)
		}
	})
}

func TestALargePlanFileIsKeptInParts(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var paths []string
		for i := range 6000 {
			paths = append(paths, fmt.Sprintf("/%06d/%s", i*7, strings.Repeat("x", 60)))
		}
		w.record(paths...)
		f := w.planFile(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		if rep := w.invalidate(dispatch.Request{Plan: f}); rep.State != journal.Completed {
			t.Fatalf("%+v", rep)
		}
		want(t, "sent", w.allSent(), paths)
		docs, err := w.st.List(t.Context(), dist, "fix/", "", 0)
		if err != nil || len(docs) < 3 {
			t.Fatalf("%d parts, %v", len(docs), err)
		}
		for _, d := range docs {
			if len(d.Value) > 200<<10 {
				t.Errorf("a part of %d bytes", len(d.Value))
			}
		}
		// The journal lost a part: nothing is sent that is not the plan.
		inv, err := w.dispatcher().Open(t.Context(), dispatch.Request{Plan: f})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.st.Commit(t.Context(), dist, store.Transaction{Delete: []string{docs[0].Key}}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err == nil || !strings.Contains(err.Error(), "lost documents") {
			t.Errorf("without a part: %v", err)
		}
	})
}

// Folded entries stand for more than their path.
func TestAPlanFileWithFoldedEntries(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		at := time.Now().Add(-time.Hour)
		rec := inventory.Sighting{Path: "/s?", Start: at, End: at, Expires: at.Add(48 * time.Hour)}.Record()
		rec.Folded = true
		if err := w.st.Merge(t.Context(), dist, []inventory.Update{{Path: "/s?", Record: rec}}); err != nil {
			t.Fatal(err)
		}
		w.record("/s", "/x")
		for _, r := range []dispatch.Request{
			{Selector: selector.Selector{Regexps: []string{"^/s"}}}, // incomplete: the entry vouches for its wildcard
			pattern("/s?q=1"), // named inside it: all that is selected of it
		} {
			f := w.planFile(r)
			p, err := w.dispatcher().Plan(t.Context(), dispatch.Request{Plan: f})
			if err != nil || p.Review.Differs() {
				t.Errorf("%s: %+v, %v", r.Selector, p.Review, err)
			}
		}
		f := w.planFile(pattern("/s?q=1"))
		f.Items = f.Items[:0]
		if p, err := w.dispatcher().Plan(t.Context(), dispatch.Request{Plan: f}); err != nil || p.Review.Missed.Count != 1 {
			t.Errorf("without its item: %+v, %v", p.Review, err)
		}
	})
}

func TestReadPlanFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		defer st.Close()
		w := &world{t: t, st: st}
		w.record("/a", "/b/1", "/b/2", "/c~d")
		whole := w.written(dispatch.Request{Selector: selector.Selector{Patterns: []string{"/a", "/b/*", "/c*d", "/caf\xe9", "/ü&<"}}, AssumeComplete: true})
		f := readBack(t, whole)
		want(t, "version", f.Version, 1)
		want(t, "escaped", f.Selector.Patterns, []string{"/a", "/b/*", "/c*d", "/caf%E9", "/ü&<"})
		if f.Hash == "" || f.Hash != f.Sum() {
			t.Fatalf("hash %q, sum %q", f.Hash, f.Sum())
		}

		// Field order and white space mean nothing.
		var fields map[string]any
		if err := json.Unmarshal(whole, &fields); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.MarshalIndent(fields, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		want(t, "hash of the file laid out otherwise", readBack(t, sorted).Hash, f.Hash)

		edit := func(name string, change func(map[string]any)) []byte {
			var fields map[string]any
			if err := json.Unmarshal(whole, &fields); err != nil {
				t.Fatal(err)
			}
			change(fields)
			data, err := json.Marshal(fields)
			if err != nil {
				t.Fatal(name, err)
			}
			return data
		}
		items := func(m map[string]any) []any { return m["items"].([]any) }
		for _, c := range []struct {
			name   string
			data   []byte
			field  string
			reason string
		}{
			{"empty", nil, "", "empty"},
			{"no JSON", []byte("{\n\"version\": 1,\n]"), "", "line 3"},
			{"two objects", append(slices.Clone(whole), whole...), "", "no JSON"},
			{"a list", []byte("[]"), "", "not a JSON object"},
			{"null", []byte("null"), "version", "missing"},
			{"a later version", edit("v", func(m map[string]any) { m["version"] = 2 }), "version", "reads 1"},
			{"no version", edit("v", func(m map[string]any) { delete(m, "version") }), "version", "missing"},
			{"other case", edit("v", func(m map[string]any) { m["Items"] = m["items"]; delete(m, "items") }), "items", "missing"},
			{"an item more", edit("i", func(m map[string]any) {
				m["items"] = append(items(m), map[string]any{"item": "/z", "kind": "path"})
			}), "hash", "was changed"},
			{"an item less", edit("i", func(m map[string]any) { m["items"] = items(m)[1:] }), "hash", "was changed"},
			{"other order", edit("i", func(m map[string]any) { slices.Reverse(items(m)) }), "hash", "was changed"},
			{"other option", edit("o", func(m map[string]any) { m["options"] = map[string]any{} }), "hash", "was changed"},
			{"other selector", edit("s", func(m map[string]any) { m["selector"] = map[string]any{"all": true} }), "hash", "was changed"},
			{"other distribution", edit("d", func(m map[string]any) { m["distribution"] = "E9" }), "hash", "was changed"},
			{"more collateral", edit("c", func(m map[string]any) { m["collateral"] = []string{"/q"} }), "hash", "was changed"},
			{"less uncovered", edit("u", func(m map[string]any) { m["uncovered"] = []any{map[string]any{"path": "/other"}} }), "hash", "was changed"},
			{"wrong kind", edit("k", func(m map[string]any) { items(m)[0].(map[string]any)["kind"] = "wildcard" }), "items[0]", "kind"},
			{"unknown kind", edit("k", func(m map[string]any) { items(m)[1].(map[string]any)["kind"] = "all" }), "items[1]", "kind"},
			{"no item", edit("k", func(m map[string]any) { items(m)[1].(map[string]any)["item"] = "blog" }), "items[1]", "begins with"},
			{"an item of other characters", edit("k", func(m map[string]any) { items(m)[1].(map[string]any)["item"] = "/b c*" }), "items[1]", "unencoded"},
			{"twice", edit("k", func(m map[string]any) { m["items"] = append(items(m), items(m)[0]) }), "items[5]", "twice"},
			{"a criterion of a later version", edit("s", func(m map[string]any) { m["selector"].(map[string]any)["colour"] = "red" }), "selector", "colour"},
			{"an option of a later version", edit("s", func(m map[string]any) { m["options"].(map[string]any)["colour"] = "red" }), "options", "colour"},
			{"a wrong selector", edit("s", func(m map[string]any) { m["selector"].(map[string]any)["regexps"] = []string{"("} }), "selector", "missing closing"},
			{"no selector", edit("s", func(m map[string]any) { m["selector"] = map[string]any{} }), "selector", "selects nothing"},
			{"a batch too large", edit("s", func(m map[string]any) { m["options"].(map[string]any)["batch"] = 4000 }), "options.batch", "4000"},
		} {
			_, err := dispatch.ReadPlanFile(bytes.NewReader(c.data))
			e, ok := errors.AsType[*dispatch.PlanFileError](err)
			if !ok || e.Field != c.field || !strings.Contains(e.Reason, c.reason) || e.Hint == "" {
				t.Errorf("%s: %#v", c.name, err)
			}
		}
		// Without its hash an edited file is what it says.
		f = readBack(t, edit("h", func(m map[string]any) { delete(m, "hash"); m["items"] = items(m)[1:] }))
		want(t, "items of the edited file", len(f.Items), 4)

		d := dispatch.New(st, "E-OTHER", nil, nil)
		if _, err := d.Plan(t.Context(), dispatch.Request{Plan: f}); err == nil || !strings.Contains(err.Error(), "was made for") {
			t.Errorf("for another distribution: %v", err)
		}
		if _, err := d.Open(t.Context(), dispatch.Request{Plan: f}); err == nil || !strings.Contains(err.Error(), "was made for") {
			t.Errorf("for another distribution: %v", err)
		}
	})
}

// docs/plan-files.md says how others compute the hash.
func TestPlanFileHashWithJq(t *testing.T) {
	jq, err := exec.LookPath("jq")
	if err != nil {
		t.Skip("jq is not installed")
	}
	st := memstore.New()
	defer st.Close()
	w := &world{t: t, st: st}
	w.record("/a", "/b/1", "/b/2", "/c~d")
	data := w.written(dispatch.Request{AssumeComplete: true, Selector: selector.Selector{Patterns: []string{"/a", "/b/*", "/c*d", "/ü&<>\"\\\t\x01"},
		OlderThan: []selector.Duration{selector.Duration(1500 * time.Millisecond)}}})
	cmd := exec.CommandContext(t.Context(), "sh", "-c", jq+
		` -cjS '{version,distribution,selector,options,collateral,items:[.items[].item],uncovered:[.uncovered[].path]}' | sha256sum`)
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := strings.Cut(string(out), " "); "sha256:"+got != readBack(t, data).Hash {
		t.Errorf("jq computes %s, not %s", got, readBack(t, data).Hash)
	}
}

func FuzzReadPlanFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"distribution":"E1","cut":"2026-01-02T03:04:05Z","selector":{"all":true},"options":{},"items":[{"item":"/a","kind":"path"},{"item":"/b*","kind":"wildcard"}],"collateral":[],"uncovered":[]}`))
	f.Add([]byte(`{"version":1,"distribution":"E1","cut":"0000-01-01T00:00:00Z","selector":{"All":true},"options":{},"items":[],"collateral":[],"uncovered":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := dispatch.ReadPlanFile(bytes.NewReader(data))
		if err != nil {
			return
		}
		// What was read is written and read as the same.
		file.Hash = file.Sum()
		again, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		back, err := dispatch.ReadPlanFile(bytes.NewReader(again))
		if err != nil || back.Sum() != file.Hash {
			t.Fatalf("%s\n%v", again, err)
		}
	})
}

// What a plan file costs over the budget is said before it is sent, as of any plan.
func TestAPlanFileOverTheBudgetSaysSo(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.drive(w.dispatcher(), pattern(paths("/x", 1000)...)) // all that is free this month
		f := w.planFile(pattern("/a"))
		for budget, want := range map[float64]bool{0: true, 1: false} {
			p, err := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Budget: &budget}).Plan(t.Context(), dispatch.Request{Plan: f})
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.ContainsFunc(p.Warnings, func(x plan.Warning) bool { return x.Code == dispatch.WarnBudget }); got != want {
				t.Errorf("with a budget of $%v: %+v", budget, p.Warnings)
			}
		}
	})
}
