// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cftrack": main})
}

// A cloud is the CloudFront of one script.
type cloud struct {
	*simulator.Simulator

	mu    sync.Mutex
	fault string
	met   map[string]int // calls since the fault was set, which met it
}

var faults = map[string]func() *simulator.Fault{
	"none":         func() *simulator.Fault { return nil },
	"denied":       simulator.AccessDenied,
	"busy":         simulator.TooManyInvalidationsInProgress,
	"lost-answer":  simulator.LostAnswer,
	"get-denied":   simulator.AccessDenied,
	"unavailable":  simulator.ServiceUnavailable,
	"lost-request": simulator.LostRequest,
}

// set makes calls go wrong in another way from now on.
func (c *cloud) set(fault string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.met = fault, map[string]int{}
}

func (c *cloud) intercept(op string, _ *http.Request) *simulator.Fault {
	c.mu.Lock()
	name := c.fault
	c.met[op]++
	c.mu.Unlock()
	if get := strings.HasPrefix(name, "get-"); get != (op == simulator.GetInvalidation) {
		return nil
	}
	return faults[name]()
}

func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			c := &cloud{}
			c.set("none")
			sim, err := simulator.New(nil, &simulator.Options{Distribution: "E2EXAMPLE", Intercept: c.intercept, Propagation: 50 * time.Millisecond})
			if err != nil {
				return err
			}
			c.Simulator = sim
			e.Defer(func() { _ = sim.Close() })
			if err := sim.Listen("127.0.0.1:0"); err != nil {
				return err
			}
			api, _ := sim.URLs()
			e.Values["cloud"] = c
			origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				_, _ = io.WriteString(w, r.RequestURI)
			}))
			e.Defer(origin.Close)
			e.Vars = append(e.Vars, "ORIGIN="+origin.URL,
				"AWS_ENDPOINT_URL_CLOUDFRONT="+api, "AWS_ACCESS_KEY_ID=example", "AWS_SECRET_ACCESS_KEY=example",
				"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+e.WorkDir+"/aws", "AWS_SHARED_CREDENTIALS_FILE="+e.WorkDir+"/aws",
				"HOME="+e.WorkDir+"/home", "XDG_DATA_HOME="+e.WorkDir+"/data", "XDG_CONFIG_HOME="+e.WorkDir+"/config",
				"CFTRACK_DISTRIBUTION=E2EXAMPLE", "USER=ada",
				// The race detector has every process sleep for a second at its end.
				"GORACE=atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "field": cmdField, "one": cmdOne, "fault": cmdFault, "sent": cmdSent, "called": cmdCalled,
			"simulate": cmdSimulate, "get": cmdGet,
		},
	})
}

// cmdExits runs a command that must end with a code: exits 3 cftrack ...
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ee *exec.ExitError
		if !errors.As(err, &ee) {
			ts.Fatalf("%v", err)
		}
		got = ee.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
}

// objects returns the lines of a stream, each of which must be an object.
func objects(ts *testscript.TestScript, stream string) []map[string]any {
	var out []map[string]any
	for line := range strings.Lines(ts.ReadFile(stream)) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			ts.Fatalf("%s: %v: %s", stream, err, line)
		}
		out = append(out, o)
	}
	return out
}

// cmdOne checks that a stream is one object with these fields: one stdout a b ...
func cmdOne(ts *testscript.TestScript, neg bool, args []string) {
	all := objects(ts, args[0])
	if neg || len(all) != 1 {
		ts.Fatalf("%s has %d objects, not one", args[0], len(all))
	}
	for _, name := range args[1:] {
		if _, ok := all[0][name]; !ok {
			ts.Fatalf("no field %q", name)
		}
	}
}

// cmdField compares a field of the first object: field stdout a.0.b VALUE.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: field STREAM NAME VALUE")
	}
	all := objects(ts, args[0])
	if len(all) == 0 {
		ts.Fatalf("%s has no object", args[0])
	}
	var v any = all[0]
	for name := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[name]; !ok {
				ts.Fatalf("no field %q in %v", name, x)
			}
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("only %d elements", len(x))
			}
			v = x[i]
		default:
			ts.Fatalf("%q of %v", name, v)
		}
	}
	got, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		ts.Check(err)
		got = string(b)
	}
	if (got == args[2]) == neg {
		ts.Fatalf("%s is %s", args[1], got)
	}
}

// cmdFault makes calls to CloudFront go wrong from now on: fault NAME.
func cmdFault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || faults[args[0]] == nil {
		ts.Fatalf("usage: fault NAME")
	}
	ts.Value("cloud").(*cloud).set(args[0])
}

// cmdSent checks all items that CloudFront has accepted: sent ITEM...
func cmdSent(ts *testscript.TestScript, neg bool, args []string) {
	got := []string{}
	for _, inv := range ts.Value("cloud").(*cloud).Invalidations() {
		got = append(got, inv.Items...)
	}
	slices.Sort(got)
	slices.Sort(args)
	if neg || !slices.Equal(got, args) {
		ts.Fatalf("CloudFront has %q, not %q", got, args)
	}
}

// cmdCalled waits until a call of an operation has met the last fault that was set. On
// a busy machine that takes as long as it takes: a process has to start, and may have to
// wait for a lease. The bound only ends tests that fail.
func cmdCalled(ts *testscript.TestScript, _ bool, args []string) {
	c := ts.Value("cloud").(*cloud)
	met := func() int {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.met[args[0]]
	}
	for deadline := time.Now().Add(5 * time.Minute); met() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s was never called", args[0])
		}
	}
}

// cmdSimulate runs cftrack simulate beside the script until its end, and sets API, EDGE0, EDGE1 and so on:
// simulate FLAG...
func cmdSimulate(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: simulate FLAG...")
	}
	args = append([]string{"simulate", "--listen", ":0", "--output", "json"}, args...)
	ctx, stop := context.WithCancel(context.Background())
	stdout, w := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	dir := ts.MkAbs(".")
	for i, a := range args {
		if strings.HasPrefix(a, "$WORK/") { // the command has the test's directory, not the script's
			args[i] = filepath.Join(dir, a[len("$WORK/"):])
		}
	}
	go func() {
		code <- run(ctx, args, strings.NewReader(""), w, &stderr, nil)
		_ = w.Close()
	}()
	ts.Defer(func() {
		stop()
		if got := <-code; got != exitDone {
			ts.Logf("simulate: exit code %d: %s", got, stderr.String())
		}
	})
	var ready struct {
		API   string
		Edges []string
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		stop()
		exit := <-code
		code <- exit
		ts.Fatalf("simulate: %v: %s", err, stderr.String())
	}
	ts.Setenv("API", ready.API)
	for i, e := range ready.Edges {
		ts.Setenv("EDGE"+strconv.Itoa(i), e)
	}
}

// cmdGet asks an edge and checks how it says that it had the answer: get URL X-CACHE.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: get URL X-CACHE")
	}
	resp, err := http.Get(args[0])
	ts.Check(err)
	_, err = io.Copy(io.Discard, resp.Body)
	ts.Check(errors.Join(err, resp.Body.Close()))
	if got := resp.Header.Get("X-Cache"); got != args[1] {
		ts.Fatalf("%s: %q, not %q", args[0], got, args[1])
	}
}

// invoke runs a command in this process.
func invoke(t *testing.T, env []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, complaints bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &complaints, env)
	return code, out.String(), complaints.String()
}

func testEnv(t *testing.T) []string {
	dir := t.TempDir()
	return []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir + "/data", "XDG_CONFIG_HOME=" + dir + "/config", "CFTRACK_DISTRIBUTION=E1"}
}

// broken is the standard output of "| head" that has seen enough.
type broken struct{}

func (broken) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestBrokenPipeIsQuiet(t *testing.T) {
	env := testEnv(t)
	if code, _, stderr := invoke(t, env, "/a\n/b\n", "record", "-"); code != 0 {
		t.Fatalf("record: %d %s", code, stderr)
	}
	var stderr bytes.Buffer
	if code := run(t.Context(), []string{"list"}, strings.NewReader(""), broken{}, &stderr, env); code != 0 || stderr.Len() > 0 {
		t.Errorf("exit %d, %q; want a quiet 0", code, stderr.String())
	}
}

func TestNothingStaysBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	env := testEnv(t)
	for _, args := range [][]string{{"record", "/a"}, {"list"}, {"plan", "--all"}, {"stats"}, {"coverage"}, {"status"}, {"list", "bad"}, {"config", "check"}} {
		invoke(t, env, "", args...)
	}
}

// TestHelp proves that every command says what it does and shows how.
func TestHelp(t *testing.T) {
	a := &app{env: map[string]string{}}
	a.newRoot()
	for _, cmd := range a.root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks a description or an example", cmd.Name())
		}
	}
}

// TestEveryFlagIsASetting gives each flag a value by environment and by file,
// and looks at what is in force.
func TestEveryFlagIsASetting(t *testing.T) {
	a := &app{env: map[string]string{}}
	a.newRoot()
	values := map[string]string{"bool": "true", "int": "7", "uint64": "7", "duration": "90", "rule": "none", "number": "3", "budget": "2.5%", "dollars": "2.5",
		"string": "json", "stringArray": "/x"}
	for name, flags := range a.settings() {
		value, ok := values[flags[0].Value.Type()]
		if !ok {
			t.Fatalf("%s: type %s", name, flags[0].Value.Type())
		}
		if name == "distribution" || name == "store" {
			value = "memory:"
		}
		env := testEnv(t)
		variable := "CFTRACK_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		code, stdout, stderr := invoke(t, append(env, variable+"="+value), "", "config", "check", "--output=json")
		if name == "output" { // the flag wins
			variable = "--output"
		}
		if code != 0 || !strings.Contains(stdout, fmt.Sprintf("%q:{\"value\":", name)) || !strings.Contains(stdout, fmt.Sprintf("\"source\":%q", variable)) {
			t.Errorf("%s=%s: exit %d\n%s%s", variable, value, code, stdout, stderr)
		}
		file := env[0][len("HOME="):] + "/c.yaml"
		if err := os.WriteFile(file, fmt.Appendf(nil, "%s: %q\n", name, value), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr = invoke(t, env[:3], "", "config", "check", "--output=json", "--config", file)
		if want := fmt.Sprintf("%q", file+":1:"+strconv.Itoa(len(name)+3)); name != "output" && (code != 0 || !strings.Contains(stdout, want)) {
			t.Errorf("%s in the file: exit %d, no %s\n%s%s", name, code, want, stdout, stderr)
		}
	}
}
