// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

const (
	distribution = "E2PROCESS"
	edges        = 2

	// patience is how long something is waited for that must come. It only ends
	// tests that fail.
	patience = 2 * time.Minute
	// atOnce is how long opening a store may take; whoever waits for a dead owner's
	// lock or socket takes longer.
	atOnce = 3 * time.Second
)

// A site answers every path with its version, which it reads before anything
// else. A path can be held: its answers wait.
type site struct {
	url     string
	version atomic.Int64
	mu      sync.Mutex
	held    map[string]chan struct{}
	asked   map[string]int       // requests
	began   map[string]time.Time // the last one
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	version := s.version.Load()
	s.mu.Lock()
	held := s.held[r.RequestURI]
	s.asked[r.RequestURI]++
	s.began[r.RequestURI] = time.Now()
	s.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}
	w.Header().Set("Cache-Control", "max-age=86400")
	fmt.Fprintf(w, "%s v%d", r.RequestURI, version)
}

// hold has the answers to a path wait until it is released; the next request for
// it has begun once begun returns true.
func (s *site) hold(path string) (begun func() bool, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{})
	s.held[path] = ch
	before := s.asked[path]
	return func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.asked[path] > before
		}, sync.OnceFunc(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.held, path)
			close(ch)
		})
}

// A world is a distribution with its site, its CloudFront and its store, and the
// processes that work on them.
type world struct {
	*testing.T
	rng    *rand.Rand
	dir    string
	redis  *redisServer // nil: the embedded store
	secret string       // of the store; nobody may ever read it
	env    []string
	site   *site
	sim    *simulator.Simulator
	client *http.Client
	origin atomic.Pointer[http.Handler] // that the edges ask
	fault  atomic.Pointer[func(op string, r *http.Request) *simulator.Fault]

	mu        sync.Mutex
	processes []*process
}

// A backend makes the store of a world.
type backend struct {
	name string
	set  func(*world)
}

var backends = []backend{
	{"file", func(w *world) { w.env = append(w.env, "CFTRACK_STORE=file:"+w.dir+"/store") }},
	{"redis", func(w *world) {
		w.redis = startRedis(w.T, "appendonly yes", "appendfsync always")
		w.use(w.redis)
	}},
}

// askOf has the edges ask a handler.
func (w *world) askOf(h http.Handler) { w.origin.Store(&h) }

// use has all processes from now on work on a Redis server.
func (w *world) use(s *redisServer) {
	w.secret = s.password
	w.env = append(w.env, "CFTRACK_STORE="+s.address())
}

// newWorld makes a world whose decisions come from n and the seed. cloud changes
// what CloudFront is like.
func newWorld(t *testing.T, n int, b backend, cloud ...func(*simulator.Options)) *world {
	t.Helper()
	w := &world{T: t, rng: rand.New(rand.NewPCG(seed, uint64(n))), dir: t.TempDir(),
		site: &site{held: map[string]chan struct{}{}, asked: map[string]int{}, began: map[string]time.Time{}}}
	t.Cleanup(w.end)
	w.site.version.Store(1)
	server := httptest.NewServer(w.site)
	t.Cleanup(server.Close)
	w.site.url = server.URL
	w.askOf(w.site)
	options := simulator.Options{Distribution: distribution, Edges: edges, Seed: w.rng.Uint64(), OriginTimeout: patience,
		Intercept: func(op string, r *http.Request) *simulator.Fault {
			if f := w.fault.Load(); f != nil {
				return (*f)(op, r)
			}
			return nil
		}}
	for _, f := range cloud {
		f(&options)
	}
	var err error
	if w.sim, err = simulator.New(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(*w.origin.Load()).ServeHTTP(rw, r)
	}), &options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.sim.Close() })
	if err := w.sim.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	w.client = &http.Client{Transport: w.sim.Transport()}
	api, _ := w.sim.URLs()
	none := w.dir + "/none"
	w.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "XDG_CONFIG_HOME=" + none, "TMPDIR=" + os.TempDir(),
		"CFTRACK_DISTRIBUTION=" + distribution, "AWS_ENDPOINT_URL_CLOUDFRONT=" + api, "AWS_ACCESS_KEY_ID=example",
		"AWS_SECRET_ACCESS_KEY=example", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=" + none,
		"AWS_SHARED_CREDENTIALS_FILE=" + none, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		// The race detector has every process sleep for a second at its end.
		"GORACE=atexit_sleep_ms=0"}
	b.set(w)
	return w
}

// end ends what still runs, and looks through what was said in this world.
func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.processes {
		p.kill()
		said := p.stdout.String() + p.stderr.String()
		if w.secret != "" && (strings.Contains(said, w.secret) || strings.Contains(p.cmdline, w.secret)) {
			w.Errorf("%v tells the store's password:\n%s\n%s", p.cmd.Args, p.cmdline, said)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(said, bad) {
				w.Errorf("%v: %s", p.cmd.Args, said)
			}
		}
		if w.Failed() {
			w.Logf("%v (%v) said:\n%s%s", p.cmd.Args[1:], p.cmd.ProcessState, p.stdout.tail(), p.stderr.tail())
		}
	}
}

// A process is one that runs or ran.
type process struct {
	cmd            *exec.Cmd
	cmdline        string    // as others on the machine could read it
	stdin          io.Closer // nil if it was given something to read
	stdout, stderr output
	done           chan struct{}
}

// An output can be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) tail() string {
	s := o.String()
	if len(s) > 2000 {
		s = "..." + s[len(s)-2000:]
	}
	return s
}

func firstLine(s string) string {
	line, _, ok := strings.Cut(s, "\n")
	if !ok {
		return ""
	}
	return line
}

// start starts a cftrack command.
func (w *world) start(stdin io.Reader, args ...string) *process {
	w.Helper()
	return w.startCommand(program, nil, stdin, args...)
}

// startCommand starts a program. Without stdin it has one that never ends.
func (w *world) startCommand(name string, env []string, stdin io.Reader, args ...string) *process {
	w.Helper()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Env = append(slices.Clone(w.env), env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = stdin, &p.stdout, &p.stderr
	if stdin == nil {
		var err error
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			w.Fatal(err)
		}
	}
	if err := p.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	if err == nil { // there are systems without
		p.cmdline = strings.ReplaceAll(string(b), "\x00", " ")
	}
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its state says how it ended
	}()
	return p
}

// kill ends it as kill -9 does, if it has not ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// wait waits until the process has ended by itself and returns its exit code.
func (w *world) wait(p *process) int {
	w.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		w.Fatalf("%v does not end:\n%s", p.cmd.Args, p.stderr.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// run runs a command to its end.
func (w *world) run(args ...string) (code int, stdout, stderr string) {
	w.Helper()
	p := w.start(strings.NewReader(""), args...)
	code = w.wait(p)
	return code, p.stdout.String(), p.stderr.String()
}

// must runs a command that has to end well and, if v is not nil, print one object.
func (w *world) must(v any, args ...string) {
	w.Helper()
	code, stdout, stderr := w.run(append(args, "--output=json")...)
	if code != 0 {
		w.Fatalf("%v: exit %d\n%s%s", args, code, stdout, stderr)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		w.Fatalf("%v: %v: %s", args, err, stdout)
	}
}

// until polls until something is so. While it waits the processes must live.
func (w *world) until(what string, so func() bool, alive ...*process) {
	w.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(10 * time.Millisecond) {
		for _, p := range alive {
			if p.ended() && !so() {
				w.Fatalf("%v ended (%v) before this: %s\n%s%s", p.cmd.Args, p.cmd.ProcessState, what, p.stdout.tail(), p.stderr.tail())
			}
		}
		if time.Now().After(deadline) {
			w.Fatalf("never: %s", what)
		}
	}
}

// list returns the paths of all entries.
func (w *world) list() map[string]bool {
	w.Helper()
	code, stdout, stderr := w.run("list", "--output=json")
	if code != 0 {
		w.Fatalf("list: exit %d: %s", code, stderr)
	}
	paths := map[string]bool{}
	for e := range objects[struct{ Path string }](w, stdout) {
		if paths[e.Path] {
			w.Errorf("%s is listed twice", e.Path)
		}
		paths[e.Path] = true
	}
	return paths
}

// objects yields what a command printed, one object a line.
func objects[T any](w *world, stdout string) func(func(T) bool) {
	return func(yield func(T) bool) {
		for d := json.NewDecoder(strings.NewReader(stdout)); ; {
			var v T
			if err := d.Decode(&v); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				w.Fatalf("%v in %s", err, stdout)
			}
			if !yield(v) {
				return
			}
		}
	}
}

// ask asks an edge for paths and returns those that it answered.
func (w *world) ask(edge int, paths ...string) (answered []string) {
	w.Helper()
	for _, p := range paths {
		resp, err := w.client.Get(fmt.Sprintf("http://edge%d.simulator%s", edge, p))
		if err != nil {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close() // all is read
		if err == nil && resp.StatusCode == http.StatusOK {
			answered = append(answered, p)
		}
	}
	return answered
}

// fill has every edge hold all paths.
func (w *world) fill(paths []string) {
	w.Helper()
	for e := range edges {
		if n := len(w.ask(e, paths...)); n != len(paths) {
			w.Fatalf("edge %d answered %d of %d paths", e, n, len(paths))
		}
	}
}

// pages names n paths.
func pages(prefix string, n int) []string {
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("/%s/%02d/%04d", prefix, i%17, i)
	}
	return paths
}

// lines writes paths one a line.
func lines(paths []string) string { return strings.Join(paths, "\n") + "\n" }

// accessLog writes paths as they were served an hour ago.
func accessLog(paths []string) string {
	var b strings.Builder
	at := time.Now().Add(-time.Hour)
	for i, p := range paths {
		fmt.Fprintf(&b, `{"cftrack":1,"end":"%d.%03d","took":"0.010","host":"example.com","method":"GET","target":"%s","status":"200","cache_control":"max-age=86400"}`+"\n",
			at.Unix(), i%1000, p)
	}
	return b.String()
}

// feedAll gives a command something to read, and no end of it.
func (w *world) feedAll(p *process, input string) {
	w.Helper()
	if _, err := io.WriteString(p.stdin.(io.Writer), input); err != nil {
		w.Fatal(err)
	}
}

// lockedBy reports whether a process owns the embedded store.
func (w *world) lockedBy(p *process) bool {
	b, err := os.ReadFile(w.dir + "/store/lock")
	return err == nil && strings.TrimSpace(string(b)) == fmt.Sprint(p.cmd.Process.Pid)
}
