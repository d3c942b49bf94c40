// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"

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

// A judge: the calls that a quota refused, and whether their caller alone was over it. Here somebody
// else has taken the second's wildcard.
func ExampleSimulator_Refusals() {
	sim, err := simulator.New(nil, &simulator.Options{Limits: simulator.StrictQuotas()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer sim.Close()
	if _, err := sim.Invalidate("/*"); err != nil {
		fmt.Println(err)
		return
	}
	req, err := http.NewRequest(http.MethodPost,
		"http://api.simulator/2020-05-31/distribution/"+simulator.DefaultDistribution+"/invalidation",
		strings.NewReader(`<InvalidationBatch><CallerReference>1</CallerReference>
			<Paths><Quantity>2</Quantity><Items><Path>/blog/*</Path><Path>/a</Path></Items></Paths></InvalidationBatch>`))
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/cloudfront/aws4_request, "+
		"SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64)) // an AWS SDK does this
	resp, err := (&http.Client{Transport: sim.Transport()}).Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	for _, c := range sim.Refusals() {
		fmt.Printf("%s: %d paths and %d wildcards refused with %s; cause: %s, own fault: %v\n", c.Caller, c.Paths, c.Wildcards, c.Code, c.Cause, c.Own)
	}
	// Output:
	// AKIDEXAMPLE: 1 paths and 1 wildcards refused with TooManyInvalidationsInProgress; cause: wildcard rate, own fault: false
}
