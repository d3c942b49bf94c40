// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath_test

import (
	"fmt"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

func ExampleCanonical() {
	path, err := cfpath.Canonical("/menu/crème brûlée?size=a+b%20c")
	fmt.Println(path, err)
	_, err = cfpath.Canonical("https://www.example.com/menu")
	fmt.Println(err)
	// Output:
	// /menu/cr%C3%A8me%20br%C3%BBl%C3%A9e?size=a+b%20c <nil>
	// "https://www.example.com/menu": byte 0: a path begins with '/'; leave out scheme and host
}

// A path that cannot be named, or not with certainty, needs a wildcard that ends
// before the trouble or the doubt.
func ExampleName() {
	for _, path := range []string{"/js/app.js", "/js/runtime~main.js", "/npm/@scope/a.js"} {
		if item, err := cfpath.Name(path); err == nil && !cfpath.InDoubt(path) {
			fmt.Println(item)
		} else if stem, ok := cfpath.SureStem(path); ok {
			fmt.Println(cfpath.Item{Kind: cfpath.Wildcard, Text: stem})
		}
	}
	// Output:
	// /js/app.js
	// /js/runtime*
	// /npm/*
}

func ExampleItem_MatchesSurely() {
	it, err := cfpath.ParseItem("/dir/*")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/dir/a", "/dir/", "/dir/it%27s"} {
		fmt.Println(path, it.Matches(path), it.MatchesSurely(path))
	}
	// Output:
	// /dir/a true true
	// /dir/ true false
	// /dir/it%27s true true
}

func ExampleQueryRule_Apply() {
	rule, err := cfpath.ParseQueryRule("exclude:utm_source,utm_medium")
	fmt.Println(rule.Apply("/a?utm_source=feed&page=2"), err)
	// Output: /a?page=2 <nil>
}
