// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package process holds the promises against what happens to processes: real
// cftrack commands and a real server with the tracker in it, over the embedded
// store and over Redis, are killed, paused, starved of disk and failed over while
// they work. A simulated CloudFront on real ports is the judge of what was billed
// and of what is stale.
package process

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"
)

// Variables by which this test binary, run again, knows what to be, and by which
// whoever runs it chooses how much is tested.
const (
	envRole  = "PROCESS_TEST_ROLE"
	envKills = "CFTRACK_KILLS" // processes to kill; default ciKills
	envSeed  = "CFTRACK_SEED"  // default: from the clock; it is printed
)

const ciKills = 40

var (
	program string // the cftrack command
	seed    uint64
	kills   = ciKills
)

func TestMain(m *testing.M) {
	if os.Getenv(envRole) == roleServer {
		os.Exit(serve())
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	// The worlds of these tests mostly wait: for leases to run out, for edges, for
	// margins to pass. More of them than there are processors fit beside each other.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("16"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	seed = uint64(time.Now().UnixNano())
	for name, set := range map[string]func(string) error{
		envSeed:  func(s string) (err error) { seed, err = strconv.ParseUint(s, 10, 64); return err },
		envKills: func(s string) (err error) { kills, err = strconv.Atoi(s); return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := set(s); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
				return 1
			}
		}
	}
	dir, err := os.MkdirTemp("", "cftrack")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "cftrack")
	if flag.Lookup("test.list").Value.String() == "" {
		if err := build(program); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	fmt.Printf("%s=%d\n", envSeed, seed)
	return m.Run()
}

// build makes the command as this test was made: with the race detector or
// without it.
func build(to string) error {
	args := []string{"build", "-o", to}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				args = append(args, "-race")
			}
		}
	}
	cmd := exec.Command("go", append(args, "../../cmd/cftrack")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, out)
	}
	return nil
}
