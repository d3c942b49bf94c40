// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog_test

import (
	"fmt"
	"io"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
)

func ExampleReader() {
	log := `192.0.2.1 - - [22/Nov/2026:18:13:06 +0000] "GET /blog/?page=2 HTTP/1.1" 200 312
192.0.2.1 - - [22/Nov/2026:18:13:07 +0000] "POST /login HTTP/1.1" 303 0
192.0.2.1 - - [22/Nov/20
`
	r := accesslog.NewReader(strings.NewReader(log), "access.log", nil)
	for {
		var line accesslog.Line
		outcome, err := r.Next(&line)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		if outcome == accesslog.Recorded {
			fmt.Println(outcome, line.Sighting.Path)
		} else {
			fmt.Println(outcome, r.Why())
		}
	}
	s := r.Summary()
	fmt.Println(s.Format, s.Lines, s.Skipped)
	fmt.Println(s.Problems[0])
	// Output:
	// recorded /blog/?page=2
	// skipped method
	// malformed no [time] "request" in the line
	// common 3 map[method:1]
	// access.log:3: no [time] "request" in the line
}
