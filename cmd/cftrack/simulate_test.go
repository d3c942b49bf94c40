// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// Every flag reaches the simulator as what it says.
func TestSimulateFlags(t *testing.T) {
	base := func() simulator.Options {
		return simulator.Options{Edges: 3, Propagation: 300 * time.Millisecond, Completion: 200 * time.Millisecond, SigningRegion: "us-east-1"}
	}
	both := simulator.Limits{Paths: 3000, Wildcards: 15, PathRate: 150, WildcardRate: 1}
	for _, row := range []struct {
		args []string
		want func(o *simulator.Options)
	}{
		{nil, func(*simulator.Options) {}},
		{[]string{"--edges=5", "--regional=2", "--harsh", "--tiers-ignore-age", "--keep-for-errors", "--root-key-is-index"}, func(o *simulator.Options) {
			o.Edges, o.Regional, o.Harsh, o.TiersIgnoreAge, o.KeepForErrors, o.RootKeyIsIndex = 5, 2, true, true, true, true
		}},
		{[]string{"--propagation=0", "--completion=1m"}, func(o *simulator.Options) { o.Propagation, o.Completion = -1, time.Minute }},
		{[]string{"--realistic"}, func(o *simulator.Options) { o.Propagation, o.Completion, o.Timing = 0, 0, simulator.RealisticTiming() }},
		{[]string{"--limits=both"}, func(o *simulator.Options) { o.Limits = both }},
		{[]string{"--limits=strict,all-calls"}, func(o *simulator.Options) { o.Limits = simulator.StrictQuotas(); o.Limits.AllCalls = true }},
		{[]string{"--weather=throttled=5%,lag=1s"}, func(o *simulator.Options) {
			o.Weather = simulator.Weather{Throttled: 0.05, Lag: simulator.Latency{Median: time.Second}}
		}},
		{[]string{"--foreign=rate=2,paths=1,wildcards=3", "--foreign-item=/a", "--foreign-item=/b*"}, func(o *simulator.Options) {
			o.Foreign = simulator.Foreign{Rate: 2, Paths: 1, Wildcards: 3, From: []string{"/a", "/b*"}}
		}},
		{[]string{"--reference-memory=1h", "--reordered-is-same", "--signing-region=*", "--seed=7"}, func(o *simulator.Options) {
			o.ReferenceMemory, o.ReorderedIsSame, o.SigningRegion, o.Seed = time.Hour, true, "*", 7
		}},
		{[]string{"--spare-directory", "--spare-doubtful", "--root-object=index.html", "--native-tag-header=Cache-Tag"}, func(o *simulator.Options) {
			o.SpareDirectory, o.SpareDoubtful, o.DefaultRootObject, o.TagHeader = true, true, "index.html", "Cache-Tag"
		}},
	} {
		a := &app{origins: map[string]config.Origin{}}
		var flags simulateFlags
		cmd := newSimulateCmd(a, &flags)
		if err := cmd.ParseFlags(row.args); err != nil {
			t.Fatal(err)
		}
		want := base()
		row.want(&want)
		if got, err := flags.options(a); err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%q: %v\n%+v, want\n%+v", row.args, err, got, want)
		}
	}
}
