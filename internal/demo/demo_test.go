// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startDemo(t *testing.T, o Options) *Demo {
	t.Helper()
	d, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(d.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was left behind: %v", d.dir, err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
	return d
}

// thin leaves some pages of the embedded site, so that a run takes no longer than
// its invalidations.
func thin(d *Demo) {
	d.site.paths = slices.DeleteFunc(d.site.paths, func(p string) bool {
		return !strings.Contains(p, "Anim") && !strings.Contains(p, "*") && len(p)%20 != 0
	})
}

func TestStory(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := startDemo(t, Options{Out: &out})
	thin(d)
	pages := len(d.site.paths)
	res, err := d.Run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	d.Invite(true)
	d.Invite(false)
	want := Result{
		Pages: pages, Edges: 3, Fetched: 3*pages - 1, Inventory: pages, Change: EmbeddedChange, Selected: 81,
		// Where a wildcard may begin depends on which pages there are.
		Items: res.Items, Paths: res.Paths, Wildcards: res.Wildcards, Price: res.Price,
		EveryPathPrice: 0.405, EverythingCollateral: pages - 81, Invalidation: res.Invalidation, State: journal.Completed, FollowUps: 1, StaleBefore: 3*81 - 1, Checked: 3 * pages,
		UnselectedHits: 3 * (pages - 81), Seconds: res.Seconds,
	}
	if *res != want {
		t.Errorf("%+v, want\n%+v\n%s", *res, want, out.String())
	}
	if res.Items != res.Paths+res.Wildcards+res.FollowUps || res.Paths == 0 || res.Wildcards == 0 {
		t.Errorf("%d items are %d paths, %d wildcards and %d follow-ups", res.Items, res.Paths, res.Wildcards, res.FollowUps)
	}
	for _, line := range append(d.Environment(), "cftrack plan '"+EmbeddedChange+"'", "cftrack demo --keep", "=> 0 stale") {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in\n%s", line, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 90 && !strings.HasPrefix(line, "curl ") {
			t.Errorf("a line is %d bytes wide: %s", len(line), line)
		}
	}
}

// Programs read these names.
func TestResultFields(t *testing.T) {
	data, err := json.Marshal(Result{})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"pages", "fetched", "selected", "items", "price", "stale", "unselected_hits"} {
		if _, ok := fields[name]; !ok {
			t.Errorf("no field %s in %s", name, data)
		}
	}
	if len(fields) != reflect.TypeFor[Result]().NumField() {
		t.Errorf("a field is missing in %s", data)
	}
}

// The proof must fail where there is something to find.
func TestProofFails(t *testing.T) {
	t.Parallel()
	d := startDemo(t, Options{Out: io.Discard})
	thin(d)
	d.site.paths = d.site.paths[:50]
	res := Result{Pages: 50}
	if err := d.browse(t.Context(), copyAt{}, &res); err != nil {
		t.Fatal(err)
	}
	none := func(string) bool { return false }
	check := func(name string, want Result, disproved bool) {
		t.Helper()
		res = Result{}
		if err := d.prove(t.Context(), none, &res); errors.Is(err, ErrDisproved) != disproved || err != nil && !disproved {
			t.Errorf("%s: %v", name, err)
		}
		if res != want {
			t.Errorf("%s: %+v, want %+v", name, res, want)
		}
	}
	check("nothing happened", Result{Checked: 150, UnselectedHits: 150}, false)

	d.site.change(d.site.paths[7:9])
	check("pages changed and nothing was sent", Result{Checked: 150, Stale: 6, UnselectedHits: 150}, true)

	report, err := d.disp.Invalidate(t.Context(), dispatch.Request{
		Selector: selector.Selector{Patterns: []string{d.site.paths[7], d.site.paths[8]}}, Now: true, Margin: margin,
	})
	if err != nil || report.State != journal.Completed {
		t.Fatalf("%+v, %v", report, err)
	}
	check("too much was sent", Result{Checked: 150, UnselectedHits: 144, UnselectedMisses: 6}, true)
}

// What changes needs a plan of paths and wildcards, few enough of these to go out
// in one batch, and none of CloudFront's own patterns would do.
func TestEmbeddedChange(t *testing.T) {
	paths, err := EmbeddedPaths()
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != 11594 || !slices.IsSorted(paths) {
		t.Errorf("%d paths, sorted: %v", len(paths), slices.IsSorted(paths))
	}
	c, err := selector.Selector{Patterns: []string{EmbeddedChange}}.Compile()
	if err != nil || len(c.Named()) > 0 {
		t.Fatalf("%v, named %v", err, c.Named())
	}
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	p, err := plan.Compute(func(yield func(plan.Input, error) bool) {
		for _, path := range paths {
			e := &inventory.Entry{Path: path, Last: now, Expires: now.Add(time.Hour)}
			if !yield(plan.Input{Entry: e, Selected: c.Selects(e, now)}, nil) {
				return
			}
		}
	}, plan.Options{Wildcards: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Totals; got.Selected != 81 || got.Paths != 14 || got.Wildcards != 4 || got.Uncovered+got.Collateral != 0 {
		t.Errorf("%+v", got)
	}
}

func TestDirectorySite(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"index.html": "home", "blog/index.html": "blog", "blog/a b é.html": "post", "blog/index.html.bak": "old",
		"css/site.css": "body{}", ".git/config": "secret", "blog/.hidden": "secret", "raw": "\x00",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := directorySite(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.paths)
	want := []string{"/", "/blog/", "/blog/a%20b%20%C3%A9.html", "/blog/index.html", "/blog/index.html.bak", "/css/site.css", "/index.html", "/raw"}
	if !slices.Equal(s.paths, want) {
		t.Errorf("paths %q, want %q", s.paths, want)
	}
	for path, want := range map[string]page{
		"/":                         {"1", "text/html; charset=utf-8", []byte("home")},
		"/blog/a%20b%20%C3%A9.html": {"1", "text/html; charset=utf-8", []byte("post")},
		"/css/site.css":             {"1", "text/css; charset=utf-8", []byte("body{}")},
		"/raw":                      {"1", "application/octet-stream", []byte("\x00")},
	} {
		if got, err := s.page(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, error %v, want %+v", path, got, err, want)
		}
	}
	if _, err := s.page("/.git/config"); !errors.Is(err, errNoPage) {
		t.Errorf("hidden file: %v", err)
	}
	s.change([]string{"/raw"})
	if got, err := s.page("/raw"); err != nil || got.revision != "2" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	empty := t.TempDir()
	for name, o := range map[string]Options{
		"no directory":    {Site: filepath.Join(empty, "none")},
		"no files":        {Site: empty},
		"one edge":        {Edges: 1},
		"too many edges":  {Edges: 100_000},
		"not a directory": {Site: "demo_test.go"},
	} {
		o.Out = io.Discard
		d, err := Start(t.Context(), o)
		if err == nil {
			err = d.Close()
			t.Errorf("%s: it started; closing: %v", name, err)
		}
	}
	d := startDemo(t, Options{Out: io.Discard, Change: "/none/*/of/these"})
	if _, err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "--change") {
		t.Errorf("nothing changes: %v", err)
	}
	d = startDemo(t, Options{Out: io.Discard, Change: "no pattern"})
	if _, err := d.Run(t.Context()); err == nil {
		t.Error("no pattern: it ran")
	}
}
