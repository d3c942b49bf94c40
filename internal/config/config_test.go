// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

func TestParseDuration(t *testing.T) {
	const hour = time.Hour
	for in, want := range map[string]time.Duration{
		"0": 0, "90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "90s": 90 * time.Second, "2h30m": 150 * time.Minute,
		"1d": 24 * hour, "1d12h": 36 * hour, "0.5d": 12 * hour, "365d": 8760 * hour, "10ms": 10 * time.Millisecond,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1s", "+1s", "1 h", "d", "1dd", "1h1d", "xd", "1d-1h", "1e3", "forever", "200000d", "106751d24h", "NaN", "..", "1,5"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

func TestFormatDurationIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "d"))
		if rapid.Bool().Draw(t, "whole") {
			d = d.Truncate(time.Minute)
		}
		s := FormatDuration(d)
		if got, err := ParseDuration(s); err != nil || got != d {
			t.Fatalf("%d is written %q and read %d, %v", d, s, got, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1d12h", "90", "0.1d", "9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDuration(s); err == nil && d < 0 {
			t.Errorf("%q is %d", s, d)
		}
	})
}

func TestTTL(t *testing.T) {
	for in, want := range map[string]TTL{
		"forever": {Given: true, Forever: true}, "1h": {Given: true, For: time.Hour},
	} {
		var got TTL
		if err := got.Set(in); err != nil || got != want || got.String() != in {
			t.Errorf("%q: %+v %q, %v", in, got, got.String(), err)
		}
	}
	var none TTL
	if err := none.Set("0s"); err == nil || none.Given || none.String() != "" {
		t.Errorf("0s: %+v, %v", none, err)
	}
}

func known(name string) bool { return name == "store" || name == "max-ttl" || name == "tag" }

func TestParse(t *testing.T) {
	f, err := Parse("c.yaml", []byte(`# comment
store: "memory:"
max-ttl: 90
tag: [a, b]
distributions:
  - id: E1
    aliases: [www.example.com, '*.example.net']
    scope: ['/*']
    origin-path: /production
    tag-header: X-Tags
    profile: prod
    role: arn:aws:iam::111122223333:role/purge
    budget: 2.5
    default-ttl: 1h
    error-ttl: 1m
    error-ttls: {404: 30s}
    tiers: 3
    behaviors:
      - pattern: '/api/*'
        policy: CachingOptimized
        query: include:page
      - pattern: '*.jpg'
        max-ttl: 2d
        cache-options: true
  - {id: E2}
`), known)
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{"store", []string{"memory:"}, Position{"c.yaml", 2, 8}},
		{"max-ttl", []string{"90"}, Position{"c.yaml", 3, 10}},
		{"tag", []string{"a", "b"}, Position{"c.yaml", 4, 7}},
	}
	if !reflect.DeepEqual(f.Settings, want) {
		t.Errorf("settings %+v", f.Settings)
	}
	d, ok := f.Distribution("WWW.example.com")
	if !ok || d.ID != "E1" || *d.OriginPath != "/production" || *d.TagHeader != "X-Tags" || d.Profile != "prod" || *d.Budget != 2.5 || d.Role == "" || len(d.Scope) != 1 {
		t.Errorf("distribution %+v, %v", d, ok)
	}
	if _, ok := f.Distribution("E3"); ok {
		t.Error("E3 is no distribution")
	}
	r, err := d.Rules(Overrides{}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	include, _ := cfpath.ParseQueryRule("include:page")
	api, jpg := r.Behaviors[0], r.Behaviors[1]
	if r.Tiers != 3 || r.ErrorTTL != time.Minute || r.ErrorTTLs[404] != 30*time.Second || r.Default.DefaultTTL != time.Hour ||
		api.MinTTL != time.Second || api.MaxTTL != 365*day || api.Query != include || jpg.MaxTTL != 2*day || jpg.DefaultTTL != day || !jpg.CacheOptions {
		t.Errorf("rules %+v", r)
	}
}

// TestParseErrors has one mistake a file: each is reported with its place and a
// remedy.
func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"a: [":                             "c.yaml:1:",
		"stor: x":                          `c.yaml:1:1: unknown setting "stor"`,
		"- store":                          "c.yaml:1:1: the configuration is no mapping",
		"store:":                           "c.yaml:1:8: store has no value",
		"store: {a: b}":                    "c.yaml:1:9: store is no plain value",
		"store: &x y":                      "c.yaml:1:8: store has an anchor",
		"store: x\nstore: y":               "c.yaml:2:1:",
		"store: x\n---\nstore: y":          "c.yaml:3:1: a second document",
		"distributions: x":                 "c.yaml:1:16: distributions is no list",
		"distributions:\n- x":              "c.yaml:2:3: a distribution is no mapping",
		"distributions:\n- {aliases: [a]}": "c.yaml:2:4: a distribution without an ID",
		"distributions:\n- id: E\n  x: 1":  `c.yaml:3:3: unknown key "x"`,
		"distributions:\n- id: E\n  aliases: a/b":                              `c.yaml:3:12: "a/b" is no alias`,
		"distributions:\n- id: E\n  origin-path: x":                            "c.yaml:3:16: an origin path begins with '/'",
		"distributions:\n- id: E\n  role: x":                                   `c.yaml:3:9: "x" is no role`,
		"distributions:\n- id: E\n  budget: -1":                                `c.yaml:3:11: "-1" is no amount`,
		"distributions:\n- id: E\n  tiers: 9":                                  `c.yaml:3:10: "9" is no number of cache tiers`,
		"distributions:\n- id: E\n  scope: ['[']":                              "c.yaml:3:11: ",
		"distributions:\n- id: E\n  policy: X":                                 `c.yaml:3:11: "X" is no managed policy`,
		"distributions:\n- id: E\n  min-ttl: x":                                `c.yaml:3:12: min-ttl: "x" is no duration`,
		"distributions:\n- id: E\n  min-ttl: 2h\n  max-ttl: 1h":                "c.yaml:2:3: max-ttl is 1h: it is below min-ttl, 2h",
		"distributions:\n- id: E\n  error-ttls: {200: 1}":                      `c.yaml:3:16: "200" is not the status of an error`,
		"distributions:\n- id: E\n  cache-options: yes":                        `c.yaml:3:18: cache-options is "yes"`,
		"distributions:\n- id: E\n  behaviors:\n  - max-ttl: 1":                "c.yaml:4:5: a behaviour without a pattern",
		"distributions:\n- id: E\n  behaviors:\n  - pattern: '*'":              "c.yaml:4:14: the default behaviour is no element",
		"distributions:\n- id: E\n  behaviors:\n  - {pattern: /x, q: 1}":       `c.yaml:4:19: unknown key "q"`,
		"distributions:\n- id: E\n- id: F\n  aliases: [e]":                     `c.yaml:3:7: "e" is the name of two distributions`,
		"distributions:\n- id: E\n  behaviors:\n  - pattern: /x\n    query: p": `c.yaml:5:12: "p": byte 0: unknown query rule`,
	} {
		_, err := Parse("c.yaml", []byte(in), known)
		var ps Problems
		if !errors.As(err, &ps) || !strings.HasPrefix(ps.Error(), want) {
			t.Errorf("%q:\n got %v\nwant %s", in, err, want)
			continue
		}
		if ps[0].Hint == "" {
			t.Errorf("%q: %s: nothing to do about it", in, ps[0].Message)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("store: x\ndistributions:\n- id: E\n  aliases: [a]\n  behaviors:\n  - {pattern: /x, max-ttl: 1}\n")
	f.Add("a: &x [*x]\n<<: {b: c}\n? [complex]\n: v\n")
	f.Add("distributions:\n- !!map {id: |\n   E}\n")
	f.Fuzz(func(t *testing.T, s string) {
		file, err := Parse("c.yaml", []byte(s), known)
		if err == nil {
			for i := range file.Distributions {
				if _, err := file.Distributions[i].Rules(Overrides{}, Overrides{}); err != nil {
					t.Errorf("%q: accepted, and yet: %v", s, err)
				}
			}
			return
		}
		var ps Problems
		if !errors.As(err, &ps) || len(ps) == 0 {
			t.Errorf("%q: %v", s, err)
		}
	})
}

// TestRulesPrecedence tries every combination of who says what about a TTL.
func TestRulesPrecedence(t *testing.T) {
	hours := func(n int) *time.Duration { d := time.Duration(n) * time.Hour; return &d }
	for mask := range 8 {
		var over, under Overrides
		var d Distribution
		want := 365 * 24 * time.Hour
		if mask&1 != 0 {
			under.Behavior.MaxTTL, want = hours(30), 30*time.Hour
		}
		if mask&2 != 0 {
			d.Behavior.MaxTTL, want = hours(40), 40*time.Hour
		}
		if mask&4 != 0 {
			over.Behavior.MaxTTL, want = hours(50), 50*time.Hour
		}
		if r, err := d.Rules(over, under); err != nil || r.Default.MaxTTL != want {
			t.Errorf("%03b: %v, %v; want %v", mask, r.Default.MaxTTL, err, want)
		}
	}
	var none *Distribution
	if r, err := none.Rules(Overrides{}, Overrides{}); err != nil || !reflect.DeepEqual(r, lifetime.DefaultRules()) {
		t.Errorf("no distribution: %+v, %v", r, err)
	}
}

// TestRulesOrder: whichever TTLs are given, in order, the others make way.
func TestRulesOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ttl := rapid.Map(rapid.Int64Range(0, 400*24), func(h int64) time.Duration { return time.Duration(h) * time.Hour })
		given := make([]*time.Duration, 3)
		last := time.Duration(0)
		for i := range given {
			if rapid.Bool().Draw(t, "given") {
				d := max(last, ttl.Draw(t, "ttl"))
				given[i], last = &d, d
			}
		}
		d := Distribution{Behavior: Behavior{MinTTL: given[0], DefaultTTL: given[1], MaxTTL: given[2]}}
		r, err := d.Rules(Overrides{}, Overrides{})
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range []time.Duration{r.Default.MinTTL, r.Default.DefaultTTL, r.Default.MaxTTL} {
			if given[i] != nil && got != *given[i] {
				t.Fatalf("TTL %d is %v, not %v", i, got, *given[i])
			}
		}
	})
}

func TestApply(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	one := fs.String("store", "default", "")
	ttl := Duration(time.Hour)
	fs.Var(&ttl, "max-ttl", "")
	tags := fs.StringArray("tag", nil, "")
	yes := fs.Bool("yes", false, "")
	if err := fs.Parse([]string{"--store", "given"}); err != nil {
		t.Fatal(err)
	}
	s := Settings{}
	fs.VisitAll(func(f *pflag.Flag) { s[f.Name] = append(s[f.Name], f) })
	file := &File{Settings: []Setting{
		{"store", []string{"file"}, Position{"c", 1, 1}}, {"tag", []string{"a", "b"}, Position{"c", 2, 1}}, {"max-ttl", []string{"2h"}, Position{"c", 3, 1}}}}
	env := map[string]string{"CFTRACK_STORE": "env", "CFTRACK_MAX_TTL": "3h", "CFTRACK_YES": ""}
	none := func(string) bool { return false }
	origins, err := s.Apply(func(k string) string { return env[k] }, file, none)
	if err != nil {
		t.Fatal(err)
	}
	if *one != "given" || time.Duration(ttl) != 3*time.Hour || !reflect.DeepEqual(*tags, []string{"a", "b"}) || *yes {
		t.Errorf("%q %v %v %v", *one, ttl, *tags, *yes)
	}
	want := map[string]Origin{"store": {FromFlag, "--store"}, "max-ttl": {FromEnvironment, "CFTRACK_MAX_TTL"}, "tag": {FromFile, "c:2:1"}, "yes": {Default, "default"}}
	if !reflect.DeepEqual(origins, want) {
		t.Errorf("origins %v", origins)
	}

	env = map[string]string{"CFTRACK_MAX_TTL": "secret-thing", "CFTRACK_YES": "1\n0"}
	_, err = s.Apply(func(k string) string { return env[k] }, &File{}, func(n string) bool { return n == "max-ttl" })
	var ps Problems
	if !errors.As(err, &ps) || len(ps) != 2 || strings.Contains(err.Error(), "secret-thing") {
		t.Errorf("%v", err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cftrack", "cftrack.yaml")
	env := map[string]string{"XDG_CONFIG_HOME": dir, "HOME": "/home/ada"}
	places := Places(func(k string) string { return env[k] })
	if !reflect.DeepEqual(places, []string{path, "/etc/cftrack/cftrack.yaml"}) {
		t.Errorf("places %v", places)
	}
	delete(env, "XDG_CONFIG_HOME")
	if p := Places(func(k string) string { return env[k] }); p[0] != "/home/ada/.config/cftrack/cftrack.yaml" {
		t.Errorf("places %v", p)
	}
	if f, err := Read("", []string{path}, known); err != nil || f.Path != "" {
		t.Errorf("no file: %+v, %v", f, err)
	}
	if _, err := Read(path, nil, known); err == nil {
		t.Error("a named file must be there")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("store: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := Read("", []string{path}, known); err != nil || f.Path != path || len(f.Settings) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := Read(dir, nil, known); err == nil {
		t.Error("a directory is no file")
	}
}

func TestLimits(t *testing.T) {
	f, err := Parse("c.yaml", []byte(`
limits:
  items-per-second: 300
  burst: 2.5
  wildcards-in-progress: none
distributions:
  - id: E1
    account: prod
    budget: 25
    limits: {items-in-progress: 500, completion-seconds: 60}
  - id: E2
    account: prod
    budget: 20
  - id: E3
    limits: {items-per-second: 10}
`), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	d := func(id string) *Distribution { x, _ := f.Distribution(id); return x }
	for _, tt := range []struct {
		d    *Distribution
		want plan.Limits
	}{
		{nil, plan.Limits{ItemsPerSecond: 300, Burst: 2.5, WildcardsInProgress: -1}},
		{d("E1"), plan.Limits{ItemsPerSecond: 300, Burst: 2.5, WildcardsInProgress: -1, ItemsInProgress: 500, CompletionSeconds: 60}},
		{d("E3"), plan.Limits{ItemsPerSecond: 10, Burst: 2.5, WildcardsInProgress: -1}},
	} {
		if got := f.LimitsOf(tt.d); got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
	// The least that is said of an account is what it may spend.
	if b := f.BudgetOf(d("E1")); b == nil || *b != 20 {
		t.Errorf("%v", b)
	}
	if f.BudgetOf(d("E3")) != nil || f.BudgetOf(nil) != nil {
		t.Error("a budget of another account")
	}
	for text, want := range map[string]string{
		"limits: {items-per-second: 0}":   `c.yaml:1:28: "0" is no value of items-per-second`,
		"limits: {burst: many}":           `is no value of burst`,
		"limits: {items-in-progress: -1}": `"-1" is no value of items-in-progress`,
		"limits: {paths: 1}":              `unknown limit "paths"`,
		"distributions:\n- id: E1\n- id: E2\n  limits: {calls-per-second: 9}": `its rates are not those of E1`,
	} {
		if _, err := Parse("c.yaml", []byte(text), func(string) bool { return false }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
