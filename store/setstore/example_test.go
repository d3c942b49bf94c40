// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package setstore_test

import (
	"context"
	"fmt"
	"log"
	"maps"
	"slices"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/store/setstore"
)

// A table is whatever a team keeps such things in.
type table map[string]bool

func (t table) Set(_ context.Context, path string) error    { t[path] = true; return nil }
func (t table) List(context.Context) ([]string, error)      { return slices.Collect(maps.Keys(t)), nil }
func (t table) Clear(context.Context) error                 { clear(t); return nil }
func (t table) Delete(_ context.Context, path string) error { delete(t, path); return nil }
func (t table) Disconnect(context.Context) error            { fmt.Println("bye"); return nil }

// Three methods make a store; the others are used where they are there.
func Example() {
	set := table{"/from before": true}
	st := setstore.New(set, nil)
	tracker, err := cftrack.Open(st, "E1EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for _, path := range []string{"/kept", "/gone"} {
		if err := tracker.Record(ctx, path, cftrack.UntilPurged); err != nil {
			log.Fatal(err)
		}
	}
	if err := tracker.Remove(ctx, "/gone"); err != nil {
		log.Fatal(err)
	}
	if err := tracker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	if err := st.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(slices.Sorted(maps.Keys(set)))
	// Output:
	// bye
	// [/from before /kept]
}
