// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// info returns a number of the server's INFO.
func (s *server) info(name string) float64 {
	for line := range strings.Lines(s.cli("info", "everything")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				s.tb.Fatal(err)
			}
			return n
		}
	}
	s.tb.Fatalf("INFO has no %s", name)
	return 0
}

func (s *server) cpu() float64 { return s.info("used_cpu_user") + s.info("used_cpu_sys") }

// BenchmarkFill merges as many sightings as CFTRACK_FILL says (default
// 200,000), 30 % of them repeats, from two writers, and scans them once: paths
// of 60 and 66 bytes (the server's compact encoding ends at 64), in batches of
// 1,000 and of 20,000. The
// server's processor time says more than the rate where client and server share
// a machine. Of the longest commands it gives the longest and the 99.9th
// percentile: where others use the machine too, the longest is their doing.
func BenchmarkFill(b *testing.B) {
	n := 200_000
	if v, err := strconv.Atoi(os.Getenv("CFTRACK_FILL")); err == nil {
		n = v
	}
	for _, length := range []int{60, 66} {
		for _, batch := range []int{1000, 20_000} {
			b.Run(fmt.Sprintf("%d bytes by %d", length, batch), func(b *testing.B) {
				for b.Loop() {
					fill(b, n, length, batch)
				}
			})
		}
	}
}

func fill(b *testing.B, n, length, batch int) {
	s := start(b, false, "--slowlog-log-slower-than", "500", "--slowlog-max-len", "10000")
	st := open(b, s.address(""))
	now, err := st.Now(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	memory := s.info("used_memory")
	cpu := s.cpu()
	var batches [][]inventory.Update
	for i := 0; i < n; i += batch {
		u := storetest.Updates(now, i, batch)
		for j := range u {
			u[j].Path = u[j].Path[:length]
		}
		batches = append(batches, u)
	}
	begun := time.Now()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 2 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(batches) {
					return
				}
				if err := st.Merge(b.Context(), "E1234567890ABC", batches[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(n)/time.Since(begun).Seconds(), "merges/s")
	b.ReportMetric((s.cpu()-cpu)*1e6/float64(n), "server-µs/merge")
	memory = s.info("used_memory") - memory
	entries := 0
	begun, cpu = time.Now(), s.cpu()
	for _, err := range st.Scan(b.Context(), "E1234567890ABC", store.Range{Now: now}) {
		if err != nil {
			b.Fatal(err)
		}
		entries++
	}
	b.ReportMetric(time.Since(begun).Seconds()*1e6/float64(entries), "s/M-scan")
	b.ReportMetric((s.cpu()-cpu)*1e6/float64(entries), "server-s/M-scan")
	b.ReportMetric(memory/float64(entries), "B/entry")
	longest := 0
	for _, line := range strings.Split(s.cli("eval", `local o = {} for _, e in ipairs(redis.call('SLOWLOG', 'GET', '10000')) do o[#o+1] = e[3] end return o`, "0"), "\n") {
		if us, err := strconv.Atoi(strings.TrimSpace(line)); err == nil {
			longest = max(longest, us)
		}
	}
	b.ReportMetric(float64(longest), "µs-longest")
	for line := range strings.Lines(s.cli("info", "latencystats")) {
		line = strings.TrimSpace(line)
		for _, command := range []string{"evalsha", "hgetall"} {
			if !strings.HasPrefix(line, "latency_percentiles_usec_"+command+":") {
				continue
			}
			if us, err := strconv.ParseFloat(line[strings.LastIndexByte(line, '=')+1:], 64); err == nil {
				b.ReportMetric(us, "µs-p99.9-"+command)
			}
		}
	}
	s.kill()
}
