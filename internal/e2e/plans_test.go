// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// TestPlansDoWhatTheySay sends plans of every kind to edges that hold exactly what the
// inventory says. What is gone then must be what the plan said would be.
func TestPlansDoWhatTheySay(t *testing.T) {
	n := counts{}
	for range 10 { // each a hundred plans, unless a flag says more
		rapid.Check(t, func(t *rapid.T) { checkPlan(t, n) })
	}
	t.Log(n)
	for _, what := range []string{"wildcard", "tag", "directory beside its wildcard", "collateral", "uncovered", "folded",
		"partly named", "in flight", "root object", "unsure", "spared", "over budget", "named", "two spellings", "query"} {
		if n[what] == 0 {
			t.Errorf("no plan had this: %s", what)
		}
	}
}

type counts map[string]int

func (n counts) note(what string, yes bool) {
	if yes {
		n[what]++
	}
}

// A page is what viewers ask for in one spelling, with its tags at each edge.
type page struct {
	target string
	path   string // canonical, with the parameters of the key
	tags   [2][]string
}

// A row is an entry of the inventory, with the pages it stands for.
type row struct {
	plan.Input
	pages []*page
	some  bool // it is folded, and only what is named of it is selected
}

// A trial is one inventory, one selection, and edges that hold it.
type trial struct {
	*rapid.T
	sim   *simulator.Simulator
	opts  simulator.Options
	tags  []string // of what the origin answers next
	pages []*page
	asked []*page // those that were drawn
	rows  []*row
	sel   *selector.Compiled // nil: drawn entry by entry
	named []cfpath.Item
}

var spellings = [][]string{
	{"a", "b", "/"},
	{"a", "A", "/", "?", "x=1", "&", "y=2"},
	{"a", "/", "~", "%7E", "b"},
	{"a", "'", "%27", "/", "b"},
	{"a", "@", "/", "//", "%2F", "b"},
	{"%C3%A9", "%c3%a9", "\u00e9", "%C3%A8", "a", "/"},
	{"*", "a", "/", "%2A", "?"},
	{".", "..", "/", "a", "%41"},
	{"index.html", "", "?x=1", "?", "i", "a", "/"},
	{strings.Repeat("x", 1990), "a", "b", "/", "?"},
}

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func checkPlan(t *rapid.T, n counts) {
	w := &trial{T: t}
	w.draw()
	in := func(yield func(plan.Input, error) bool) {
		for _, r := range w.rows {
			if !yield(r.Input, nil) {
				return
			}
		}
	}
	opts := w.budgets()
	p, err := plan.Compute(in, opts)
	if err != nil {
		t.Fatal(err)
	}
	w.log(p, &opts)
	w.send(itemsOf(p)...)
	w.judge(p, &opts)
	if !w.plain() {
		n.note("spared", true)
		return
	}
	w.judgeItems(p)
	w.judgeRemedies(p)
	w.judgeExplanations(p)
	w.note(p, n)
}

// plain tells whether the edges remove what AWS's wording says, no more and no less.
func (w *trial) plain() bool {
	return !w.opts.SpareDirectory && !w.opts.SpareDoubtful && !w.opts.RootKeyIsIndex
}

func itemsOf(p *plan.Plan) (items []string) {
	for _, it := range p.Items {
		items = append(items, it.Item.String())
	}
	return items
}

func (w *trial) log(p *plan.Plan, o *plan.Options) {
	for _, r := range w.rows {
		w.Logf("%.80q selected %v named %v in flight %v folded %v tags %v mixed %v, %d pages",
			r.Entry.Path, r.Selected, r.Named, r.InFlight, r.Entry.Folded, r.Entry.Tags, r.Entry.Mixed, len(r.pages))
	}
	w.Logf("spare %v %v, root %q %v", w.opts.SpareDirectory, w.opts.SpareDoubtful, w.opts.DefaultRootObject, w.opts.RootKeyIsIndex)
	w.Logf("%+v", *o)
	for _, it := range p.Items {
		w.Logf("%.80q covers %d collateral %d %s unsure %v", it.Item.String(), it.Covers, it.Collateral, it.Reason.Code, it.Unsure)
	}
	w.Logf("totals %+v, uncovered %+v", p.Totals, p.Uncovered)
}

// draw draws edges, pages, the inventory of them, and a selection.
func (w *trial) draw() {
	rule := rapid.SampledFrom([]string{"all", "all", "none", "include:x"}).Draw(w.T, "query")
	w.opts = simulator.Options{Edges: 2, Propagation: -1, Completion: -1, TagHeader: "Cache-Tag",
		SpareDirectory: rapid.IntRange(0, 4).Draw(w.T, "spare directory") == 0, SpareDoubtful: rapid.IntRange(0, 4).Draw(w.T, "spare doubtful") == 0}
	if rapid.IntRange(0, 3).Draw(w.T, "root") == 0 {
		w.opts.DefaultRootObject, w.opts.RootKeyIsIndex = "index.html", rapid.Bool().Draw(w.T, "root key")
	}
	rules := lifetime.DefaultRules()
	var err error
	if rules.Default.Query, err = cfpath.ParseQueryRule(rule); err != nil {
		w.Fatal(err)
	}
	w.opts.Rules = &rules
	w.drawPages(&rules)
	w.sim, err = simulator.New(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Cache-Control", "max-age=86400")
		if len(w.tags) > 0 {
			rw.Header().Set("Cache-Tag", strings.Join(w.tags, ", "))
		}
	}), &w.opts)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { w.sim.Close() })
	w.fill()
	w.inventory()
	w.selection()
}

func (w *trial) drawPages(rules *lifetime.Rules) {
	letters := rapid.SampledFrom(spellings).Draw(w.T, "letters")
	tags := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "A", "b", "news"}), 0, 2)
	most := rapid.IntRange(1, 12).Draw(w.T, "most")
	for range most {
		p := &page{target: "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 5).Draw(w.T, "target"), "")}
		path, err := cfpath.FromTarget(p.target)
		if err != nil || slices.ContainsFunc(w.pages, func(o *page) bool { return o.target == p.target }) {
			continue // too long, or once more
		}
		p.path = rules.Match(path).Query.Apply(path)
		p.tags[0] = tags.Draw(w.T, "tags")
		p.tags[1] = p.tags[0]
		if rapid.IntRange(0, 5).Draw(w.T, "mixed") == 0 {
			p.tags[1] = tags.Draw(w.T, "other tags")
		}
		w.pages = append(w.pages, p)
	}
	if len(w.pages) == 0 {
		w.pages = append(w.pages, &page{target: "/", path: "/"})
	}
	w.asked = slices.Clip(w.pages)
}

// fill has every edge hold every page.
func (w *trial) fill() {
	for _, p := range w.pages {
		for edge := range w.opts.Edges {
			w.tags = p.tags[edge]
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RequestURI = p.target
			rec := httptest.NewRecorder()
			w.sim.Edge(edge).ServeHTTP(rec, r)
			o, held := w.sim.Peek(edge, p.target)
			if !held {
				w.Fatalf("edge %d answers %.80q with %d, and does not hold it", edge, p.target, rec.Code)
			}
			if strings.HasPrefix(rec.Header().Get("X-Cache"), "Hit") {
				p.tags[edge] = o.Tags // it is the object of another page
			}
			if o.Path != p.path && !w.opts.RootKeyIsIndex {
				w.Fatalf("%.80q is held as %.80q, and tracked as %.80q", p.target, o.Path, p.path)
			}
		}
	}
}

// inventory merges the sightings of the pages, and folds some.
func (w *trial) inventory() {
	records, pages, inside := map[string]inventory.Record{}, map[string][]*page{}, map[string]bool{}
	var folded []string
	for range rapid.IntRange(0, 5).Draw(w.T, "folded") - 3 {
		p := rapid.SampledFrom(w.asked).Draw(w.T, "folded page")
		prefix := p.path[:rapid.IntRange(1, len(p.path)).Draw(w.T, "folded at")]
		more := &page{target: prefix + "zzz", path: prefix + "zzz"} // so that nothing else reaches all of it
		if path, err := cfpath.FromTarget(more.target); err != nil || path != more.path || w.opts.Rules.Match(path).Query.Apply(path) != path ||
			slices.ContainsFunc(w.pages, func(o *page) bool { return o.path == more.path }) {
			continue
		}
		folded = append(folded, prefix)
		w.pages = append(w.pages, more)
	}
	w.fill()
	for _, p := range w.pages {
		at, in := p.path, ""
		for _, f := range folded { // the innermost
			if strings.HasPrefix(p.path, f) && len(f) > len(in) {
				in = f
			}
		}
		if _, own := records[at]; in != "" && (at == in || at == in+"zzz" || inside[at] || !own && rapid.Bool().Draw(w.T, "in it")) {
			inside[at] = true
			at = in
		}
		for _, tags := range p.tags {
			r := inventory.Sighting{Path: at, Start: now, End: now, Expires: now.Add(time.Hour), Tags: tags}.Record()
			r.Folded = slices.Contains(folded, at)
			records[at] = records[at].Merge(r)
		}
		pages[at] = append(pages[at], p)
	}
	for _, at := range slices.Sorted(maps.Keys(records)) {
		record := records[at]
		e := record.Entry(at)
		w.rows = append(w.rows, &row{Input: plan.Input{Entry: &e}, pages: pages[at]})
	}
}

// selection draws what is selected: by a selector, or entry by entry.
func (w *trial) selection() {
	if rapid.Bool().Draw(w.T, "by a selector") {
		c, err := w.selector().Compile()
		if err == nil {
			w.sel, w.named = c, c.Named()
			for _, r := range w.rows {
				r.Selected = c.Selects(r.Entry, now)
				r.Named = r.Selected && r.Entry.Folded && c.Names(r.Entry)
			}
		}
	}
	if w.sel == nil {
		w.nameSome()
		share := rapid.IntRange(0, 4).Draw(w.T, "share")
		for _, r := range w.rows {
			r.Selected = rapid.IntRange(0, 3).Draw(w.T, "selected") < share
			for _, it := range w.named {
				r.Selected = r.Selected || it.Matches(r.Entry.Path) || carries(r.Entry, it)
				if r.Entry.Folded && it.Kind != cfpath.Tag && strings.HasPrefix(it.Text, r.Entry.Path) {
					r.Selected, r.Named = true, rapid.Bool().Draw(w.T, "only what is named")
				}
			}
		}
	}
	for _, r := range w.rows {
		r.some = r.Selected && r.Named && !slices.ContainsFunc(w.named, func(it cfpath.Item) bool { return it.Kind == cfpath.Wildcard && it.Matches(r.Entry.Path) })
		r.InFlight = r.Selected && !r.Entry.Folded && rapid.IntRange(0, 9).Draw(w.T, "in flight") == 0
	}
}

func carries(e *inventory.Entry, it cfpath.Item) bool {
	return it.Kind == cfpath.Tag && slices.ContainsFunc(e.Tags, func(tag string) bool { return strings.EqualFold(tag, it.Text) })
}

func (w *trial) selector() (s selector.Selector) {
	some := func(what string) []string {
		var list []string
		for range rapid.IntRange(0, 2).Draw(w.T, what) {
			p := rapid.SampledFrom(w.asked).Draw(w.T, "page").path
			from := rapid.IntRange(1, len(p)).Draw(w.T, "from")
			to := rapid.IntRange(from, len(p)).Draw(w.T, "to")
			star := rapid.SampledFrom([]string{"", "*", "*"}).Draw(w.T, "star")
			if star == "" {
				from = to
			}
			list = append(list, p[:from]+star+p[to:])
		}
		return list
	}
	s.Patterns, s.Exclude = some("patterns"), some("exclusions")
	if rapid.IntRange(0, 3).Draw(w.T, "by tag") == 0 {
		s.Tags = []string{rapid.SampledFrom([]string{"a", "B", "news"}).Draw(w.T, "tag")}
	}
	s.All = s.Empty()
	s.ExactQuery = rapid.Bool().Draw(w.T, "exact query")
	return s
}

// nameSome names paths, wildcards that end after any byte, and tags.
func (w *trial) nameSome() {
	for range rapid.IntRange(0, 4).Draw(w.T, "named") - 2 {
		p := rapid.SampledFrom(w.asked).Draw(w.T, "page").path
		text := p[:rapid.IntRange(1, len(p)).Draw(w.T, "length")] + rapid.SampledFrom([]string{"", "*"}).Draw(w.T, "star")
		if rapid.IntRange(0, 3).Draw(w.T, "tag") == 0 {
			text = "#" + rapid.SampledFrom([]string{"a", "B", "news"}).Draw(w.T, "tag")
		}
		it, err := cfpath.ParseItem(text)
		if err == nil && (it.Kind != cfpath.Wildcard || cfpath.ValidStem(it.Text)) && (it.Kind != cfpath.Path || nameable(it.Text)) {
			w.named = append(w.named, it)
		}
	}
}

func nameable(path string) bool { _, err := cfpath.Name(path); return err == nil }

// budgets draws how it is planned.
func (w *trial) budgets() plan.Options {
	o := plan.Options{
		Named: w.named, Wildcards: rapid.IntRange(0, 5).Draw(w.T, "incomplete") > 0,
		OnlySeen: rapid.Bool().Draw(w.T, "only seen"), Exact: rapid.IntRange(0, 9).Draw(w.T, "exact") == 0,
		NativeTags: rapid.Bool().Draw(w.T, "native tags"), RootObject: w.opts.DefaultRootObject,
		Scope:    rapid.SampledFrom([][]string{nil, nil, nil, {"/*"}, {"/a*"}, {"/a/*", "/b*"}}).Draw(w.T, "scope"),
		Doubtful: w.opts.Rules.QueryInDoubt, Compare: rapid.IntRange(0, 9).Draw(w.T, "compare") == 0,
	}
	number := func(what string, most int) *int {
		if rapid.IntRange(0, 2).Draw(w.T, what) > 0 {
			return nil
		}
		v := rapid.IntRange(0, most).Draw(w.T, what)
		return &v
	}
	o.MaxItems, o.MaxWildcards = number("items", 6), number("wildcards", 3)
	if v := number("price", 6); v != nil {
		price := float64(*v) * 0.005
		o.MaxPrice = &price
	}
	if v := number("collateral", 8); v != nil {
		o.MaxCollateral = &plan.Budget{Entries: *v}
		if rapid.Bool().Draw(w.T, "percent") {
			o.MaxCollateral = &plan.Budget{Percent: float64(*v) * 20}
		}
	}
	for _, r := range w.rows {
		o.Explain = append(o.Explain, r.Entry.Path)
	}
	return o
}

func (w *trial) send(items ...string) {
	if len(items) == 0 {
		return
	}
	if _, err := w.sim.Invalidate(items...); err != nil {
		w.Fatalf("CloudFront would not take %.200q: %v", items, err)
	}
}
