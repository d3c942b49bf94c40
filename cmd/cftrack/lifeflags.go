// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// lifeFlags are what the flags say about the distribution's default behaviour.
type lifeFlags struct {
	minTTL, defaultTTL, maxTTL, errorTTL config.Duration
	query                                queryFlag
	originPath                           string
	tiers                                tiersFlag
}

func (l *lifeFlags) add(f *pflag.FlagSet) {
	b := lifetime.DefaultBehavior()
	l.minTTL, l.defaultTTL, l.maxTTL = config.Duration(b.MinTTL), config.Duration(b.DefaultTTL), config.Duration(b.MaxTTL)
	l.errorTTL = config.Duration(lifetime.DefaultErrorTTL)
	l.tiers = lifetime.DefaultTiers
	f.Var(&l.minTTL, "min-ttl", "minimum TTL of the default cache behaviour")
	f.Var(&l.defaultTTL, "default-ttl", "its default TTL")
	f.Var(&l.maxTTL, "max-ttl", "its maximum TTL, the lifetime where none is known")
	f.Var(&l.errorTTL, "error-ttl", "error caching minimum TTL")
	f.Var(&l.query, "query", "query parameters in its cache key: all, none, include:a,b or exclude:a,b")
	f.StringVar(&l.originPath, "origin-path", "", "what CloudFront puts before the path on its way to the origin")
	f.Var(&l.tiers, "tiers", "cache tiers that may each start a lifetime anew: 2, or 3 with Origin Shield")
}

// overrides sorts the flags into those that count before what the configuration
// says about the distribution, and those that count after it.
func (l *lifeFlags) overrides(origins map[string]config.Origin) (over, under config.Overrides) {
	side := func(name string) *config.Overrides {
		switch origins[name].Source {
		case config.FromFlag, config.FromEnvironment:
			return &over
		case config.FromFile:
			return &under
		}
		return new(config.Overrides)
	}
	given := func(d config.Duration) *time.Duration { v := time.Duration(d); return &v }
	side("min-ttl").Behavior.MinTTL = given(l.minTTL)
	side("default-ttl").Behavior.DefaultTTL = given(l.defaultTTL)
	side("max-ttl").Behavior.MaxTTL = given(l.maxTTL)
	side("error-ttl").ErrorTTL = given(l.errorTTL)
	side("query").Behavior.Query = (*cfpath.QueryRule)(&l.query)
	tiers := int(l.tiers)
	side("tiers").Tiers = &tiers
	return over, under
}

type queryFlag cfpath.QueryRule

func (q *queryFlag) Set(s string) error {
	r, err := cfpath.ParseQueryRule(s)
	*q = queryFlag(r)
	return err
}

func (q *queryFlag) String() string { return cfpath.QueryRule(*q).String() }
func (q *queryFlag) Type() string   { return "rule" }

type tiersFlag int

func (t *tiersFlag) Set(s string) error {
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s || n < 1 || n > lifetime.MaxTiers {
		return fmt.Errorf("write 1 to %d cache tiers", lifetime.MaxTiers)
	}
	*t = tiersFlag(n)
	return nil
}

func (t *tiersFlag) String() string { return fmt.Sprint(int(*t)) }
func (t *tiersFlag) Type() string   { return "number" }
