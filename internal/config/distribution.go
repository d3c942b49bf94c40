// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// A Distribution is what a file says about one. What it leaves open is nil.
type Distribution struct {
	ID         string
	Aliases    []string
	Scope      []string // path patterns of what its recorders see
	OriginPath *string
	TagHeader  *string
	// RootObject is what CloudFront asks the origin for in place of "/", as "index.html".
	RootObject string
	// NativeTags: CloudFront takes "#tag" for it.
	NativeTags bool
	Twins      []string // templates of what is fetched beside a page; nil: the default ones
	Role       string   // to assume, an ARN
	Profile    string   // of the AWS configuration files
	// Account names the AWS account; distributions of one share its rates and its
	// budget. Empty is the one account of a store that has no other.
	Account string
	// Budget in dollars a month is that of the account.
	Budget *float64
	// Limits are CloudFront's for this distribution; a zero field says nothing.
	Limits plan.Limits

	Behavior  Behavior // the default one
	Behaviors []Behavior
	ErrorTTL  *time.Duration
	ErrorTTLs map[int]time.Duration
	Tiers     *int

	At Position
}

// A Behavior is what is said about a cache behaviour.
type Behavior struct {
	Pattern                    cfpath.Pattern
	MinTTL, DefaultTTL, MaxTTL *time.Duration
	Query                      *cfpath.QueryRule
	CacheOptions, AllHeaders   bool
	policy                     *lifetime.Behavior
}

// Rules returns the rules of the distribution, which may be nil. What over says
// counts before what the distribution says about its default behaviour, its tiers
// and its errors, what under says after it. A TTL that nobody gave is moved so that
// minimum, default and maximum are in order.
func (d *Distribution) Rules(over, under Overrides) (lifetime.Rules, error) {
	if d == nil {
		d = &Distribution{}
	}
	r := lifetime.DefaultRules()
	r.Default = d.Behavior.rule(over.Behavior, under.Behavior)
	r.ErrorTTL = first(r.ErrorTTL, over.ErrorTTL, d.ErrorTTL, under.ErrorTTL)
	r.ErrorTTLs = d.ErrorTTLs
	r.Tiers = first(r.Tiers, over.Tiers, d.Tiers, under.Tiers)
	for _, b := range d.Behaviors {
		r.Behaviors = append(r.Behaviors, b.rule(Behavior{}, Behavior{}))
	}
	return r, check(&r)
}

// check validates rules, in the words of settings.
func check(r *lifetime.Rules) error {
	if d := &r.Default; d.MaxTTL < d.MinTTL {
		// Said of the two that were given, not of the default between them.
		return &lifetime.Error{Field: "max-ttl", Value: FormatDuration(d.MaxTTL), Reason: "it is below min-ttl, " + FormatDuration(d.MinTTL),
			Hint: "raise it, or lower min-ttl"}
	}
	err := r.Validate()
	var le *lifetime.Error
	if errors.As(err, &le) {
		words := strings.NewReplacer("MinTTL", "min-ttl", "DefaultTTL", "default-ttl", "MaxTTL", "max-ttl", "ErrorTTL", "error-ttl",
			"Tiers", "tiers", "AllHeaders", "all-headers")
		return &lifetime.Error{Field: words.Replace(le.Field[strings.LastIndexByte(le.Field, '.')+1:]), Value: le.Value,
			Reason: words.Replace(le.Reason), Hint: words.Replace(le.Hint)}
	}
	return err
}

// Overrides are settings from outside of a distribution.
type Overrides struct {
	Behavior Behavior
	ErrorTTL *time.Duration
	Tiers    *int
}

func (b Behavior) rule(over, under Behavior) lifetime.Behavior {
	r := lifetime.DefaultBehavior()
	if b.policy != nil {
		r = *b.policy
	}
	r.Pattern, r.CacheOptions, r.AllHeaders = b.Pattern, b.CacheOptions, b.AllHeaders
	r.Query = first(r.Query, over.Query, b.Query, under.Query)
	lowest := firstGiven(over.MinTTL, b.MinTTL, under.MinTTL)
	middle := firstGiven(over.DefaultTTL, b.DefaultTTL, under.DefaultTTL)
	highest := firstGiven(over.MaxTTL, b.MaxTTL, under.MaxTTL)
	r.MinTTL, r.DefaultTTL, r.MaxTTL = first(r.MinTTL, lowest), first(r.DefaultTTL, middle), first(r.MaxTTL, highest)
	if lowest == nil {
		r.MinTTL = min(r.MinTTL, first(r.MinTTL, middle), first(r.MinTTL, highest))
	}
	if highest == nil {
		r.MaxTTL = max(r.MaxTTL, r.MinTTL, first(0, middle))
	}
	if middle == nil {
		r.DefaultTTL = min(max(r.DefaultTTL, r.MinTTL), max(r.MinTTL, r.MaxTTL))
	}
	return r
}

func firstGiven[T any](given ...*T) *T {
	for _, p := range given {
		if p != nil {
			return p
		}
	}
	return nil
}

func first[T any](otherwise T, given ...*T) T {
	if p := firstGiven(given...); p != nil {
		return *p
	}
	return otherwise
}

func (d *decoder) distribution(n ast.Node) Distribution {
	out := Distribution{At: d.at(n)}
	for _, e := range d.entries(n, "a distribution") {
		if d.behaviorKey(e, &out.Behavior) {
			continue
		}
		switch e.name {
		case "id":
			out.ID = d.word(e)
			out.At = d.at(e.value)
		case "aliases":
			for _, t := range d.texts(e.value, e.name) {
				if t.text == "" || strings.ContainsAny(t.text, "/ ?#") {
					d.fail(t.node, "write host names alone, such as www.example.com", "%q is no alias", t.text)
					continue
				}
				out.Aliases = append(out.Aliases, t.text)
			}
		case "scope":
			for _, t := range d.texts(e.value, e.name) {
				if _, err := cfpath.ParsePattern(t.text); err != nil {
					d.wrong(t.node, err)
					continue
				}
				out.Scope = append(out.Scope, t.text)
			}
		case "origin-path":
			s := d.word(e)
			if s != "" && (!strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/")) {
				d.fail(e.value, "write it as in the distribution: /production", "an origin path begins with '/' and does not end in one")
			}
			out.OriginPath = &s
		case "tag-header":
			s := d.word(e)
			out.TagHeader = &s
		case "root-object":
			if t, ok := d.text(e.value, e.name); ok {
				if _, err := cfpath.ParseRootObject(t.text); err != nil {
					d.wrong(t.node, err)
				}
				out.RootObject = t.text
			}
		case "native-tags":
			if t, ok := d.text(e.value, e.name); ok {
				v, err := strconv.ParseBool(t.text)
				if err != nil {
					d.fail(e.value, "write true or false", "%q is neither true nor false", t.text)
				}
				out.NativeTags = v
			}
		case "twins":
			out.Twins = []string{}
			for _, t := range d.texts(e.value, e.name) {
				if err := selector.CheckTwin(t.text); err != nil {
					d.wrong(t.node, err)
					continue
				}
				out.Twins = append(out.Twins, t.text)
			}
		case "role":
			if out.Role = d.word(e); out.Role != "" && !strings.HasPrefix(out.Role, "arn:") {
				d.fail(e.value, "write its ARN, such as arn:aws:iam::111122223333:role/purge", "%q is no role", out.Role)
			}
		case "profile":
			out.Profile = d.word(e)
		case "account":
			out.Account = d.word(e)
		case "limits":
			out.Limits = d.limits(e.value)
		case "budget":
			if t, ok := d.text(e.value, e.name); ok {
				v, err := strconv.ParseFloat(t.text, 64)
				if err != nil || !(v >= 0) {
					d.fail(e.value, "write dollars a month, such as 25", "%q is no amount", t.text)
				}
				out.Budget = &v
			}
		case "error-ttl":
			out.ErrorTTL = d.duration(e.value, e.name)
		case "error-ttls":
			out.ErrorTTLs = map[int]time.Duration{}
			for _, s := range d.entries(e.value, e.name) {
				status, err := strconv.Atoi(s.name)
				if err != nil || status < 400 || status > 599 {
					d.fail(s.key, "write statuses from 400 to 599", "%q is not the status of an error", s.name)
				} else if v := d.duration(s.value, s.name); v != nil {
					out.ErrorTTLs[status] = *v
				}
			}
		case "tiers":
			if t, ok := d.text(e.value, e.name); ok {
				v, err := strconv.Atoi(t.text)
				if err != nil || v < 1 || v > lifetime.MaxTiers {
					d.fail(e.value, "write 2, or 3 with Origin Shield", "%q is no number of cache tiers", t.text)
				}
				out.Tiers = &v
			}
		case "behaviors":
			for _, b := range d.items(e.value, e.name) {
				out.Behaviors = append(out.Behaviors, d.behavior(b))
			}
		default:
			d.fail(e.key, "a distribution has id, aliases, scope, origin-path, root-object, behaviors, policy, min-ttl, default-ttl, max-ttl, query, cache-options, all-headers, "+
				"error-ttl, error-ttls, tiers, tag-header, native-tags, twins, role, profile, account, limits and budget", "unknown key %q", e.name)
		}
	}
	if out.ID == "" {
		d.fail(n, "write 'id: E...' as CloudFront shows it", "a distribution without an ID")
	}
	d.ordered(n, out.Behavior)
	return out
}

func (d *decoder) behavior(n ast.Node) Behavior {
	var b Behavior
	pattern := false
	for _, e := range d.entries(n, "a behaviour") {
		if e.name == "pattern" {
			pattern = true
			t, ok := d.text(e.value, e.name)
			if !ok {
				continue
			}
			var err error
			if b.Pattern, err = cfpath.ParsePattern(t.text); err != nil {
				d.wrong(e.value, err)
			} else if t.text == "*" || t.text == "/*" {
				d.fail(e.value, "put its settings into the distribution itself", "the default behaviour is no element of behaviors")
			}
		} else if !d.behaviorKey(e, &b) {
			d.fail(e.key, "a behaviour has pattern, policy, min-ttl, default-ttl, max-ttl, query, cache-options and all-headers", "unknown key %q", e.name)
		}
	}
	if !pattern {
		d.fail(n, "write 'pattern: /images/*'", "a behaviour without a pattern")
	}
	d.ordered(n, b)
	return b
}

// behaviorKey reads what default and other behaviours have in common.
func (d *decoder) behaviorKey(e entry, b *Behavior) bool {
	switch e.name {
	case "policy":
		if name := d.word(e); name != "" {
			p, ok := lifetime.ManagedPolicy(name)
			if !ok {
				d.fail(e.value, "name a managed cache policy such as CachingOptimized, or write min-ttl, default-ttl, max-ttl and query", "%q is no managed policy", name)
			}
			b.policy = &p
		}
	case "min-ttl":
		b.MinTTL = d.duration(e.value, e.name)
	case "default-ttl":
		b.DefaultTTL = d.duration(e.value, e.name)
	case "max-ttl":
		b.MaxTTL = d.duration(e.value, e.name)
	case "query":
		if t, ok := d.text(e.value, e.name); ok {
			q, err := cfpath.ParseQueryRule(t.text)
			if err != nil {
				d.wrong(e.value, err)
			}
			b.Query = &q
		}
	case "cache-options":
		b.CacheOptions = d.boolean(e)
	case "all-headers":
		b.AllHeaders = d.boolean(e)
	default:
		return false
	}
	return true
}

// ordered checks the TTLs that stand together.
func (d *decoder) ordered(n ast.Node, b Behavior) {
	r := lifetime.DefaultRules()
	r.Default = b.rule(Behavior{}, Behavior{})
	r.Default.Pattern = cfpath.Pattern{}
	var le *lifetime.Error
	if errors.As(check(&r), &le) {
		d.fail(n, le.Hint, "%s is %s: %s", le.Field, le.Value, le.Reason)
	}
}

// unique checks that a name means one distribution.
func (d *decoder) unique(ds []Distribution) {
	seen := map[string]Position{}
	for _, x := range ds {
		for _, name := range append([]string{x.ID}, x.Aliases...) {
			key := strings.ToLower(name)
			if at, again := seen[key]; again && name != "" {
				d.problems = append(d.problems, Problem{x.At.String(), fmt.Sprintf("%q is the name of two distributions", name), "the other is at " + at.String() + ": rename one"})
			}
			seen[key] = x.At
		}
	}
}

// word reads a text without white space around it.
func (d *decoder) word(e entry) string {
	t, ok := d.text(e.value, e.name)
	if ok && t.text != strings.TrimSpace(t.text) {
		d.fail(e.value, "delete it", "%s has white space around it", e.name)
	}
	return t.text
}

func (d *decoder) boolean(e entry) bool {
	t, ok := d.text(e.value, e.name)
	if ok && t.text != "true" && t.text != "false" {
		d.fail(e.value, "write true or false", "%s is %q", e.name, t.text)
	}
	return t.text == "true"
}

func (d *decoder) duration(n ast.Node, name string) *time.Duration {
	t, ok := d.text(n, name)
	if !ok {
		return nil
	}
	v, err := ParseDuration(t.text)
	if err != nil {
		d.fail(n, DurationHint, "%s: %v", name, err)
		return nil
	}
	return &v
}

// wrong notes an error of cfpath, which brings its own hint.
func (d *decoder) wrong(n ast.Node, err error) {
	var pe *cfpath.Error
	if errors.As(err, &pe) {
		hint := pe.Hint
		bare := *pe
		bare.Hint = ""
		d.fail(n, hint, "%s", bare.Error())
		return
	}
	var se *selector.Error
	if errors.As(err, &se) {
		hint := se.Hint
		bare := *se
		bare.Hint = ""
		d.fail(n, hint, "%s", bare.Error())
		return
	}
	d.fail(n, "", "%v", err)
}
