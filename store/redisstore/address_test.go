// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAddresses(t *testing.T) {
	for _, tc := range []struct {
		address string
		shown   string
		hosts   string
		check   func(c config) bool
	}{
		{"redis://", "redis:", "localhost:6379", func(c config) bool { return c.prefix == "cftrack" && c.db == 0 && c.tls == nil }},
		{"redis://h", "redis://h", "h:6379", func(c config) bool { return c.timeout == 5*time.Second && c.dialTimeout == 2*time.Second }},
		{"redis://u:hush@h:1/3", "redis://h:1/3", "h:1", func(c config) bool { return c.username == "u" && c.password == "hush" && c.db == 3 }},
		{"redis://:p%40%2Fhush@h/?db=3", "redis://h/3", "h:6379", func(c config) bool { return c.username == "" && c.password == "p@/hush" && c.db == 3 }},
		{"redis://h?prefix=p&timeout=1s&dial_timeout=100ms&username=u", "redis://h?prefix=p", "h:6379", func(c config) bool {
			return c.prefix == "p" && c.timeout == time.Second && c.dialTimeout == 100*time.Millisecond && c.username == "u"
		}},
		{"rediss://h:7", "rediss://h:7", "h:7", func(c config) bool { return c.tls != nil }},
		{"redis://[::1]:7", "redis://[::1]:7", "[::1]:7", func(config) bool { return true }},
		{"redis://[::1]", "redis://[::1]", "[::1]:6379", func(config) bool { return true }},
		{"redis://a:1,b,c:3/?cluster=true", "redis://a:1,b,c:3/?cluster=true", "a:1 b:6379 c:3", func(c config) bool { return c.cluster }},
		{"redis://a,b:2/?sentinel=main", "redis://a,b:2/?sentinel=main", "a:26379 b:2", func(c config) bool { return c.sentinel == "main" }},
		{"redis+unix:///run/r.sock?db=2", "redis+unix:///run/r.sock?db=2", "/run/r.sock", func(c config) bool { return c.socket && c.db == 2 }},
		{"redis+unix://u:hush@/run/r.sock", "redis+unix:///run/r.sock", "/run/r.sock", func(c config) bool { return c.username == "u" && c.password == "hush" }},
	} {
		c, err := parse(tc.address, Options{})
		if err != nil {
			t.Errorf("%s: %v", tc.address, err)
			continue
		}
		if c.shown != tc.shown || strings.Join(c.hosts, " ") != tc.hosts || !tc.check(c) {
			t.Errorf("%s: shown as %q, hosts %q, %+v", tc.address, c.shown, c.hosts, c)
		}
	}
}

func TestBadAddresses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"":                               "begins with",
		"http://h":                       "begins with",
		"redis:h":                        "of the form",
		"redis://u:hush/x@h":             "of the form",
		"redis://u:hu%sh@h":              "of the form",
		"redis://u:hush@h:port":          "of the form",
		"redis://h/#hush":                "of the form",
		"redis://h/?a=%hush":             "of the form",
		"redis://h/one":                  "option db",
		"redis://h/1?db=1":               "twice",
		"redis://h?db=-1":                "option db",
		"redis://h?prefix=":              "option prefix",
		"redis://h?prefix={a}":           "option prefix",
		"redis://h?prefix=a&prefix=b":    "occurs 2 times",
		"redis://h?password=hush":        "unknown option",
		"redis://h?timeout=5":            "option timeout",
		"redis://h?dial_timeout=-1s":     "option dial_timeout",
		"redis://h?cluster=maybe":        "option cluster",
		"redis://a,b":                    "cluster=true or sentinel",
		"redis://a,,b?cluster=true":      "host",
		"redis://h/1?cluster=true":       "no database but 0",
		"redis://h?cluster=1&sentinel=m": "exclude",
		"redis+unix://h/s":               "redis+unix:///",
		"redis+unix:///s?cluster=true":   "one server",
		"redis://h?ca_file=" + empty:     "rediss",
		"rediss://h?ca_file=" + empty:    "no certificate",
		"redis://h?sentinel=m&sentinel_password_file=" + empty + "x": "sentinel_password_file",
		"redis://:hush@h?password_file=" + empty:                     "both",
	} {
		st, err := Open(address, nil)
		if err == nil {
			_ = st.Close()
			t.Errorf("%s was accepted", address)
			continue
		}
		if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v, want something about %q and no secret", address, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"redis://", "rediss://u:p@h:1/2?prefix=x", "redis+unix:///s?db=1", "redis://[::1]?cluster=true", "redis://a,?sentinel=m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if strings.Contains(address, "_file") {
			return // it may name a file of this machine
		}
		c, err := parse(address, Options{Password: "hush"})
		if err != nil {
			return
		}
		if len(c.hosts) == 0 || c.prefix == "" || c.timeout <= 0 || c.dialTimeout <= 0 {
			t.Errorf("%q became %+v", address, c)
		}
		// What is shown names the same store.
		again, err := parse(c.shown, Options{})
		if err != nil || !slices.Equal(again.hosts, c.hosts) || again.db != c.db || again.prefix != c.prefix ||
			again.cluster != c.cluster || again.sentinel != c.sentinel || again.username != "" || again.shown != c.shown {
			t.Errorf("%q is shown as %q, %v", address, c.shown, err)
		}
	})
}

func TestIndexKeepsOrder(t *testing.T) {
	text := rapid.StringMatching(`[\x00\x01\x02a\x{ff}]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := text.Draw(t, "a"), text.Draw(t, "b")
		fa, fb := toField(a), toField(b)
		if toPath(fa) != a || fa == "" {
			t.Fatalf("%q became %q and %q", a, fa, toPath(fa))
		}
		if (a < b) != (fa < fb) || (a < b) != ((&page{start: a, id: "zzz"}).member() < (&page{start: b, id: "AAA"}).member()) && a != b {
			t.Fatalf("%q and %q change their order", a, b)
		}
		start, id, ok := parseMember((&page{start: a, id: "id"}).member())
		if !ok || start != a || id != "id" {
			t.Fatalf("%q became %q, %q, %v", a, start, id, ok)
		}
		// A lookup finds the members of starts up to the field, and no others.
		if after := indexKey(b) + "\x00\x01"; ((&page{start: a, id: "~~"}).member() < after) != (a <= b) {
			t.Fatalf("a page from %q on is on the wrong side of %q", a, b)
		}
		if fa < fb {
			if sep := separator(fa, fb); !(fa < sep && sep <= fb) {
				t.Fatalf("%q does not divide %q from %q", sep, fa, fb)
			}
		}
	})
}

func TestDivide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab\x00]{1,9}`), 1, 400, rapid.ID[string]).Draw(t, "fields")
		slices.Sort(fields)
		parts := divide(&page{id: "old", end: "c"}, fields)
		for _, f := range fields {
			n := 0
			for _, p := range parts {
				if p.covers(f) {
					n++
				}
			}
			if n != 1 && len(parts) > 0 {
				t.Fatalf("%d parts cover %q", n, f)
			}
		}
		for i, p := range parts {
			in := 0
			for _, f := range fields {
				if p.covers(f) {
					in++
				}
			}
			if in == 0 || in > pageSplit || i > 0 && parts[i-1].end != p.start {
				t.Fatalf("part %d of %d holds %d of %d", i, len(parts), in, len(fields))
			}
		}
	})
}

func TestHashTags(t *testing.T) {
	name := rapid.StringMatching(`[{}E1%:.\x00\x{ff}]{0,5}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := name.Draw(t, "a"), name.Draw(t, "b")
		if tag := hashTag(a); tag == "" || strings.ContainsAny(tag, "{}:") {
			t.Fatalf("%q became %q", a, tag)
		}
		if (a == b) != (hashTag(a) == hashTag(b)) {
			t.Fatalf("%q and %q have the same tag", a, b)
		}
	})
}

// What a client knows of pages is never wrong, whatever it learns and forgets.
func TestPagesKeepToTheFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ps pages
		ps.name("i")
		var facts []*page
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			lo, hi := rapid.IntRange(0, 20).Draw(t, "start"), rapid.IntRange(0, 20).Draw(t, "end")
			if hi <= lo {
				hi = 99
			}
			key := func(n int) string { return string(rune('a' + n)) }
			p := &page{id: newID(), start: key(lo), end: key(hi), last: hi == 99}
			facts = append(facts, p)
			ps.learn("i", p)
			ps.learn("another", &page{id: "wrong", last: true})
			if rapid.Bool().Draw(t, "forget") {
				ps.forget(rapid.SampledFrom(facts).Draw(t, "which"))
			}
			for f := range 25 {
				if found := ps.find("i", key(f)); found != nil && (!found.covers(key(f)) || found.id == "wrong") {
					t.Fatalf("%+v for %q", found, key(f))
				}
			}
			for i := 1; i < len(ps.list); i++ {
				if ps.list[i-1].last || ps.list[i-1].end > ps.list[i].start {
					t.Fatalf("%+v overlaps %+v", ps.list[i-1], ps.list[i])
				}
			}
		}
	})
}
