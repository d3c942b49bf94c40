// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/internal/demo"
)

// locales multiply the paths of the embedded site, as they do on the real one.
var locales = strings.Fields(`ar bg ca cs da de el en-GB en-US es et fa fi fr he hi hu id it ja ko
	ms nl no pl pt-BR pt-PT ro ru sk sv th tr uk vi`)

const logHeader = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status " +
	"cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes " +
	"time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status " +
	"fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start " +
	"sc-range-end\n"

var agents = []string{
	"Mozilla/5.0%20(Macintosh;%20Intel%20Mac%20OS%20X%2010_15_7)%20AppleWebKit/605.1.15%20(KHTML,%20like%20Gecko)%20Version/18.5%20Safari/605.1.15",
	"Mozilla/5.0%20(Windows%20NT%2010.0;%20Win64;%20x64)%20AppleWebKit/537.36%20(KHTML,%20like%20Gecko)%20Chrome/141.0.0.0%20Safari/537.36",
	"Mozilla/5.0%20(X11;%20Linux%20x86_64;%20rv:143.0)%20Gecko/20100101%20Firefox/143.0",
}

// writeLog writes a log of at least size bytes that ends at end, and returns its
// number of lines, without those of the header. Some paths are asked for often and
// most of them rarely; one request in twenty has a query, one in fifty finds nothing.
func writeLog(w io.Writer, size int64, end time.Time, seed uint64) (int, error) {
	paths, err := demo.EmbeddedPaths()
	if err != nil {
		return 0, err
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	popular := rand.NewZipf(rng, 1.05, 50, uint64(len(paths)-1))
	rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	const hour = 3600
	b := bufio.NewWriterSize(w, 1<<20)
	written, err := b.WriteString(logHeader)
	total, lines := int64(written), 0
	for ; total < size && err == nil; lines++ {
		path := "/" + locales[rng.IntN(len(locales))] + paths[popular.Uint64()]
		if rng.IntN(3) == 0 { // crawlers do not care what is popular
			path = "/" + locales[rng.IntN(len(locales))] + paths[rng.IntN(len(paths))]
		}
		query, status, result := "-", 200, "Hit"
		switch rng.IntN(100) {
		case 0, 1, 2, 3, 4:
			query = fmt.Sprintf("v=%d", rng.IntN(20))
		case 5, 6:
			status, result = 404, "Error"
		case 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19:
			result = "Miss"
		}
		at := end.Add(-time.Duration(rng.IntN(hour)) * time.Second).UTC()
		written, err = fmt.Fprintf(b, "%s\tFRA60-P%d\t%d\t192.0.2.%d\tGET\td111111abcdef8.cloudfront.net\t%s\t%d\t-\t%s\t%s\t-\t%s\t%016x%016x%08x==\t"+
			"www.example.com\thttps\t%d\t0.%03d\t-\tTLSv1.3\tTLS_AES_128_GCM_SHA256\t%s\tHTTP/2.0\t-\t-\t%d\t0.%03d\t%s\ttext/html\t%d\t-\t-\n",
			at.Format("2006-01-02\t15:04:05"), rng.IntN(9), 2000+rng.IntN(90_000), rng.IntN(256), path, status, agents[rng.IntN(len(agents))], query,
			result, rng.Uint64(), rng.Uint64(), rng.Uint32(), 200+rng.IntN(400), rng.IntN(1000), result, 1024+rng.IntN(60_000), rng.IntN(1000),
			result, 1000+rng.IntN(90_000))
		total += int64(written)
	}
	return lines, errors.Join(err, b.Flush())
}

// importing builds the command and has it read a log, plain and compressed.
func importing(ctx context.Context, size int64) (_ *table, err error) {
	dir, err := os.MkdirTemp("", "cftrack-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	plain, packed := filepath.Join(dir, "access.log"), filepath.Join(dir, "access.log.gz")
	lines, err := writeLogs(plain, packed, size)
	if err != nil {
		return nil, err
	}
	tool := filepath.Join(dir, "cftrack")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", tool, "./cmd/cftrack").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the command: %w\n%s", err, out)
	}

	t := &table{columns: []column{{"s", "s"}, {"MB/s", "MB of log/s"}, {"cpu", "processor, s"}, {"peak", "peak memory, MB"}, {"paths", "paths"}}}
	info, err := os.Stat(plain)
	if err != nil {
		return nil, err
	}
	// once runs a command and returns what it printed. The log is in the page cache,
	// where it was written a moment ago.
	once := func(label, peer string, name string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		began := time.Now()
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", label, err, stderr.Bytes())
		}
		took, state := time.Since(began).Seconds(), cmd.ProcessState
		m := map[string]float64{"s": took, "MB/s": float64(info.Size()) / 1e6 / took, "cpu": (state.UserTime() + state.SystemTime()).Seconds()}
		// A child begins with its parent's peak, below which its own cannot be seen.
		var own syscall.Rusage
		if u, ok := state.SysUsage().(*syscall.Rusage); ok && syscall.Getrusage(syscall.RUSAGE_SELF, &own) == nil && u.Maxrss > own.Maxrss {
			m["peak"] = float64(u.Maxrss) / 1024
		}
		t.rows = append(t.rows, row{label: label, metrics: m, peer: peer})
		return bytes.TrimSpace(out), nil
	}
	shell := func(label, command string) (int, error) {
		out, err := once(label, "", "sh", "-c", command)
		n := 0
		if err == nil {
			_, err = fmt.Sscan(string(out), &n)
		}
		return n, err
	}
	imported := func(label, peer, file string) error {
		store := filepath.Join(dir, "store-"+filepath.Base(file))
		out, err := once(label, peer, tool, "import", file, "--store", "file:"+store, "--distribution", "E2EXAMPLE", "--output", "json")
		if err != nil {
			return err
		}
		var said struct{ Lines, Malformed, Recorded, Paths int }
		if err := json.Unmarshal(out, &said); err != nil {
			return err
		}
		if said.Lines < lines || said.Malformed != 0 || said.Recorded == 0 {
			return fmt.Errorf("%s: of %d lines: %s", label, lines, out)
		}
		t.rows[len(t.rows)-1].metrics["paths"] = float64(said.Paths)
		return nil
	}

	const unzip, sorted = "`gzip -dc \\| wc -l`", "`cut -f8 \\| LC_ALL=C sort -u`"
	n, err := shell(unzip, "gzip -dc '"+packed+"' | wc -l")
	if err != nil {
		return nil, err
	}
	if n != lines+2 {
		return nil, fmt.Errorf("wc counts %d lines, %d were written", n, lines+2)
	}
	if n, err = shell(sorted, "cut -f8 '"+plain+"' | sort -u | wc -l"); err != nil {
		return nil, err
	}
	t.rows[len(t.rows)-1].metrics["paths"] = float64(n)
	if err := imported("`cftrack import`, gzip", unzip, packed); err != nil {
		return nil, err
	}
	return t, imported("`cftrack import`, plain", sorted, plain)
}

func writeLogs(plain, packed string, size int64) (lines int, err error) {
	p, err := os.Create(plain)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	g, err := os.Create(packed)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	z, err := gzip.NewWriterLevel(g, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	lines, err = writeLog(io.MultiWriter(p, z), size, time.Now(), 1)
	return lines, errors.Join(err, z.Close())
}
