// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Command bench measures what matters to users, each beside a peer in the same
// run, and prints tables: `make bench`. The Go benchmarks are where the code is;
// importing is measured here, with the built command and a made-up access log of
// CloudFront.
//
//	go run ./internal/bench                         print everything
//	go run ./internal/bench -only import -bytes 1e8 a part of it, smaller
//	go run ./internal/bench -o docs/performance.md  write the document
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	out := flag.String("o", "", "write to this `file`")
	only := flag.String("only", "", "one `section`: "+strings.Join(names(), ", "))
	size := flag.Float64("bytes", 1<<30, "size of the access log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *out, *only, int64(*size)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out, only string, size int64) error {
	if only != "" && !slices.Contains(names(), only) {
		return fmt.Errorf("there is no section %q: %s", only, strings.Join(names(), ", "))
	}
	var doc bytes.Buffer
	w := io.MultiWriter(&doc, os.Stdout)
	header(w)
	for _, s := range sections {
		if only != "" && only != s.name {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", s.name)
		t, err := s.measure(ctx, size)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(w, "\n## %s\n\n%s\n\n", s.title, s.about)
		t.write(w)
	}
	if out == "" {
		return nil
	}
	return os.WriteFile(out, doc.Bytes(), 0o644)
}

func header(w io.Writer) {
	fmt.Fprintf(w, `# Performance

Written by `+"`go run ./internal/bench -o docs/performance.md`"+` on %s:
%s, %d cores, %s, %s.

The load average was %s when it began; above 1, others were using the machine, and
single runs of a minute (the embedded store, Redis, access logs) are rough. Compare
within a table, whose rows ran one after the other, and not with other machines.
`, time.Now().UTC().Format("2 January 2006"), processor(), runtime.NumCPU(), memory(), runtime.Version(), load())
}

func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if f := strings.Fields(string(data)); err == nil && len(f) > 0 {
		return f[0]
	}
	return "unknown"
}

// processor and memory name the machine, where it is Linux.
func processor() string { return procField("/proc/cpuinfo", "model name", runtime.GOARCH) }

func memory() string {
	var kb float64
	if _, err := fmt.Sscanf(procField("/proc/meminfo", "MemTotal", ""), "%f", &kb); err != nil {
		return "memory unknown"
	}
	return fmt.Sprintf("%.0f GiB", kb/(1<<20))
}

func procField(file, name, otherwise string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return otherwise
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return otherwise
}

// goTest runs Go benchmarks a number of times and returns the medians. The runs are
// whole ones, so that what disturbs the machine for a while does not hit one of
// those that are compared alone.
func goTest(ctx context.Context, runs int, pkg, bench string, env []string, args ...string) ([]result, error) {
	args = append([]string{"test", "-run", "^$", "-bench", bench, "-timeout", "30m"}, append(args, pkg)...)
	var all bytes.Buffer
	for range runs {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), env...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		text, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, text, stderr.Bytes())
		}
		all.Write(text)
	}
	rs := parse(all.String())
	if len(rs) == 0 {
		return nil, fmt.Errorf("go %s: no benchmark ran\n%s", strings.Join(args, " "), all.Bytes())
	}
	return rs, nil
}
