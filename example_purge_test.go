// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// A server records what it serves and purges what an edit changes: here against
// a simulated CloudFront, with the zero Options against the real one.
func Example_purge() {
	sim, _ := simulator.New(nil, &simulator.Options{Distribution: "E1EXAMPLE"})
	defer sim.Close()
	cdn, _ := awscloudfront.New(context.Background(), awscloudfront.Options{AccessKey: "AKID", SecretKey: "secret",
		Endpoint: "http://api.simulator", HTTPClient: &http.Client{Transport: sim.Transport()}})

	st := memstore.New()
	defer st.Close()
	tracker, _ := cftrack.Open(st, "E1EXAMPLE", nil)
	defer tracker.Close(context.Background())
	purger := dispatch.New(st, "E1EXAMPLE", cdn, nil)

	mux := http.NewServeMux()
	mux.HandleFunc("POST /articles/{id}", func(w http.ResponseWriter, r *http.Request) {
		// ... the article is stored; then what CloudFront has of it must go.
		report, err := purger.Invalidate(r.Context(), dispatch.Request{
			Selector: selector.Selector{Patterns: []string{"/articles/" + r.PathValue("id")}},
			Reason:   "edited",
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, report.State, report.Items)
	})

	w := httptest.NewRecorder()
	tracker.Middleware(mux).ServeHTTP(w, httptest.NewRequest("POST", "/articles/7", nil))
	fmt.Print(w.Body)
	// Output: completed 1
}
