// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// sample returns a log of n lines, of pages that are asked for as on a real
// site: few of them often.
func sample(n int, line func(path string, i int) string) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rng, 1.1, 8, 1<<17)
	var b bytes.Buffer
	for i := range n {
		page := zipf.Uint64()
		path := fmt.Sprintf("/products/category-%d/item-%d/index.html", page%97, page)
		if page%5 == 0 {
			path += fmt.Sprintf("?page=%d&sort=price", page%11)
		}
		b.WriteString(line(path, i))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

const agent = "Mozilla/5.0%20(Macintosh;%20Intel%20Mac%20OS%20X%2010_15_7)%20AppleWebKit/537.36%20(KHTML,%20like%20Gecko)%20Chrome/141.0.0.0%20Safari/537.36"

func sampleCloudFront(n int, method string) []byte {
	return append([]byte("#Version: 1.0\n"+allFields+"\n"), sample(n, func(path string, i int) string {
		stem, query := cfpath.ToLog(path)
		result := []string{"Hit", "Hit", "Miss", "RefreshHit"}[i%4]
		return edgeLine(allFields, edge(map[string]string{
			"time": fmt.Sprintf("18:%02d:%02d", i/60%60, i%60), "cs-method": method, "cs-uri-stem": stem, "cs-uri-query": query,
			"cs(User-Agent)": agent, "cs(Referer)": "https://www.example.com/", "x-edge-result-type": result,
			"x-edge-request-id": "SOX4xwn4XV6Q4rgb7XiVGOHms_BGlTAC4KyHmureZmBNrjGdRLiNIQ==", "x-forwarded-for": "192.0.2.44",
			"ssl-protocol": "TLSv1.3", "ssl-cipher": "TLS_AES_128_GCM_SHA256", "cs-protocol-version": "HTTP/2.0",
			"x-edge-response-result-type": result, "x-edge-detailed-result-type": result, "sc-content-type": "text/html",
		}))
	})...)
}

func BenchmarkReader(b *testing.B) {
	const n = 100_000
	cloudFront := sampleCloudFront(n, "GET")
	for _, bc := range []struct {
		name string
		data []byte
		opts *Options
		size int // if not that of data
	}{
		{name: "cloudfront", data: cloudFront},
		{name: "cloudfront-gzip", data: gzipped(b, string(cloudFront)), size: len(cloudFront)},
		{name: "cloudfront-skipped", data: sampleCloudFront(n, "POST")},
		{name: "cloudfront-expired", data: cloudFront, opts: &Options{Now: at("2999-01-01T00:00:00Z")}},
		{name: "combined", data: sample(n, func(path string, i int) string {
			return strings.Replace(strings.Replace(combinedLine, "/a?x=1", path, 1), "agent", agent, 1)
		})},
		{name: "cftrack", data: sample(n, func(path string, _ int) string { return strings.Replace(cftrackLine, "/a?x=1", path, 1) })},
		{name: "caddy", data: sample(n, func(path string, _ int) string { return strings.Replace(caddyLine, "/a?x=1", path, 1) })},
		{name: "list", data: sample(n, func(path string, _ int) string { return strings.Replace(listLine, "/a?x=1", path, 1) })},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(cmp.Or(bc.size, len(bc.data))))
			b.ReportAllocs()
			for b.Loop() {
				r := NewReader(bytes.NewReader(bc.data), "bench", bc.opts)
				var l Line
				var err error
				for err == nil {
					_, err = r.Next(&l)
				}
				if s := r.Summary(); err != io.EOF || s.Lines != n || s.Malformed != 0 {
					b.Fatalf("%v %+v", err, s)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}

// Lines that are skipped, and lines of paths that were seen before, cost no
// memory.
func TestAllocations(t *testing.T) {
	for _, tc := range []struct {
		line string
		opts Options
	}{
		{cloudFrontLine("/a", "-", "200", "Hit"), Options{}},
		{cloudFrontLine("/a", "x=1", "404", "Error"), Options{}},
		{cloudFrontLine("/a", "-", "200", "Redirect"), Options{}},
		{cloudFrontLine("/a", "-", "200", "Hit"), Options{Now: at("2999-01-01T00:00:00Z")}},
		{cloudFrontLine("/a", "-", "200", "Hit"), Options{Hosts: []string{"other"}}},
		{combinedLine, Options{}},
		{strings.Replace(combinedLine, "GET", "POST", 1), Options{}},
		{strings.Replace(combinedLine, "GET /a", `\x16\"`, 1), Options{}},
		{strings.Replace(cftrackLine, "GET", "POST", 1), Options{}},
	} {
		const n = 2000
		r := NewReader(strings.NewReader(strings.Repeat(tc.line+"\n", n)), "test.log", &tc.opts)
		var l Line
		next := func() {
			if o, err := r.Next(&l); o == Malformed || err != nil {
				t.Fatalf("%v: %v, %s", tc.line, err, r.Why())
			}
		}
		next()
		if got := testing.AllocsPerRun(n/2, next); got != 0 {
			t.Errorf("%.80s: %v allocations a line (%s)", tc.line, got, r.Why())
		}
	}
}
