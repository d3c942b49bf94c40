// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator_test

import (
	"fmt"
	"io"
	"net/http"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

func Example() {
	version := 1
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "page %s, version %d", r.URL.Path, version)
	})
	sim, err := simulator.New(origin, &simulator.Options{Edges: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sim.Close()

	client := &http.Client{Transport: sim.Transport()}
	for range 2 {
		version++ // the second viewer gets what the first one got
		resp, err := client.Get("http://edge0.simulator/blog/")
		if err != nil {
			fmt.Println(err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		fmt.Println(resp.Header.Get("X-Cache"), "-", string(body), err)
	}
	// Output:
	// Miss from cloudfront - page /blog/, version 2 <nil>
	// Hit from cloudfront - page /blog/, version 2 <nil>
}

// The control API goes wrong as a test wants it: here every third call is throttled.
func ExampleOptions_intercept() {
	calls := 0
	sim, err := simulator.New(nil, &simulator.Options{
		Intercept: func(op string, _ *http.Request) *simulator.Fault {
			if calls++; calls%3 == 0 {
				return simulator.Throttling()
			}
			return nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sim.Close()
	client := &http.Client{Transport: sim.Transport()}
	for range 3 {
		resp, err := client.Get("http://api.simulator/2020-05-31/distribution/" + simulator.DefaultDistribution)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp.Body.Close()
		fmt.Println(resp.StatusCode) // 403: the request is not signed
	}
	// Output:
	// 403
	// 403
	// 400
}
