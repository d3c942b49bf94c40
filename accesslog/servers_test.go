// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

var capture = flag.Bool("capture", false, "keep what the servers write as testdata")

// An asked target, as it stands in the request line, and what its line in the
// log must say.
type asked struct {
	target string
	life   time.Duration // of one tier
	tags   string
}

const page, notFound = 600 * time.Second, 33 * time.Second

var targets = []asked{
	{"/", page, "t1 t2"},
	{"/a%20b.html", page, "t1 t2"},
	{"/a%2520b", page, "t1 t2"},
	{"/q?x=1&y=%22z%22", page, "t1 t2"},
	{`/say"hi"`, page, "t1 t2"},
	{`/back\slash\x41`, page, "t1 t2"},
	{"/it's(1)~@!$,;=", page, "t1 t2"},
	{"/%C3%A9.html", page, "t1 t2"},
	{"/\u00e9.html?\u00e9", page, "t1 t2"},
	{"/emoji/\U0001F600", page, "t1 t2"},
	{"/bad\xff\xfe?\x80=1", page, "t1 t2"},
	{"//double//slash", page, "t1 t2"},
	{"/dir/../dir/./x.html", page, "t1 t2"},
	{"/dir/x.html?", page, "t1 t2"},
	{"/new+x%2by?a=b?c", page, "t1 t2"},
	{"/[b]{c}|d^e`f<g>", page, "t1 t2"},
	{"/tab%09%0a%7f", page, "t1 t2"},
	{"/long?" + strings.Repeat("x", 7900), page, "t1 t2"},
	{"http://absolute.example/dir/x.html?abs=1", page, "t1 t2"},
	{"/missing/page?v=1", notFound, ""}, // through an error page
	{"/app/plain?x", 24 * time.Hour, ""},
	{"/app/aged", 77 * time.Second, "a b k1 k2"},
	{"/app/quoted", 60 * time.Second, `é"q\x`},
	{"/app/slow", 24 * time.Hour, ""},
}

// slow is how long /app/slow takes.
const slow = 150 * time.Millisecond

// app is the application behind the servers. It notes when it answered.
type app struct {
	mu    sync.Mutex
	times map[string][2]time.Time
}

func (a *app) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	began := time.Now()
	switch h := w.Header(); req.URL.Path {
	case "/app/aged":
		h.Set("Cache-Control", "public, max-age=77")
		h.Set("Age", "5")
		h.Set("Cache-Tag", "a, b")
		h.Set("Surrogate-Key", "k1 k2")
	case "/app/quoted":
		h.Set("Cache-Control", `no-cache="Set-Cookie", max-age=60`)
		h.Set("Cache-Tag", `é"q\x`)
	case "/app/slow":
		<-time.After(slow)
	}
	_, _ = io.WriteString(w, "ok")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[req.URL.Path] = [2]time.Time{began, time.Now()}
}

// A server is started with a configuration around what formats.md says.
type server struct {
	programs []string
	snippet  string // the language of its block in formats.md
	log      string // the path in it
	config   string // $SNIPPET, $DIR, $PORT and $APP are replaced
	args     []string
	format   Format
	also     map[string]Format // other logs that the configuration writes
	end      os.Signal
}

var servers = map[string]server{
	"nginx": {
		programs: []string{"nginx", "/usr/sbin/nginx"}, snippet: "nginx", log: "/var/log/nginx/cftrack.log",
		args: []string{"-c", "$DIR/config", "-e", "$DIR/error.log"}, format: CFTrack, end: syscall.SIGQUIT,
		also: map[string]Format{"combined.log": Combined, "vhost.log": Combined},
		config: `daemon off; pid $DIR/pid;
events {}
http {
$SNIPPET
log_format vhost '$host:$server_port $remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"';
access_log $DIR/combined.log combined;
access_log $DIR/vhost.log vhost;
large_client_header_buffers 4 16k;
client_body_temp_path $DIR/body; proxy_temp_path $DIR/proxy; fastcgi_temp_path $DIR/fastcgi; uwsgi_temp_path $DIR/uwsgi; scgi_temp_path $DIR/scgi;
server {
	listen 127.0.0.1:$PORT; root $DIR/root; error_page 404 /404.html;
	location / { try_files $uri $uri/index.html /index.html; add_header Cache-Tag "t1, t2"; add_header Cache-Control "public, max-age=600"; }
	location /missing/ { return 404; }
	location = /404.html { internal; add_header Cache-Control "max-age=33" always; }
	location /app/ { proxy_pass http://$APP; }
}
}
`,
	},
	"apache": {
		programs: []string{"apache2", "/usr/sbin/apache2", "httpd", "/usr/sbin/httpd"}, snippet: "apache", log: "/var/log/apache2/cftrack.log",
		args: []string{"-D", "FOREGROUND", "-f", "$DIR/config"}, format: CFTrack, end: syscall.SIGTERM,
		also: map[string]Format{"combined.log": Combined, "common.log": Common, "vhost.log": Combined},
		config: `ServerRoot $ROOT
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule dir_module modules/mod_dir.so
LoadModule headers_module modules/mod_headers.so
LoadModule mime_module modules/mod_mime.so
LoadModule alias_module modules/mod_alias.so
LoadModule proxy_module modules/mod_proxy.so
LoadModule proxy_http_module modules/mod_proxy_http.so
TypesConfig /dev/null
PidFile $DIR/pid
ErrorLog $DIR/error.log
Listen 127.0.0.1:$PORT
ServerName www.example.com
LimitRequestLine 16000
User "#65534"
Group "#65534"
DocumentRoot $DIR/root
$SNIPPET
LogFormat "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" vhost_combined
LogFormat "%h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\"" combined
LogFormat "%h %l %u %t \"%r\" %>s %O" common
CustomLog $DIR/combined.log combined
CustomLog $DIR/common.log common
CustomLog $DIR/vhost.log vhost_combined
ErrorDocument 404 /404.html
FallbackResource /index.html
Redirect 404 /missing
<LocationMatch "^/(?!app/|404)">
	Header set Cache-Control "public, max-age=600"
	Header set Cache-Tag "t1, t2"
</LocationMatch>
<Location /404.html>
	Header always set Cache-Control "max-age=33"
</Location>
ProxyPass /app/ http://$APP/app/
<Directory />
	Require all granted
</Directory>
`,
	},
	"caddy": {
		programs: []string{"caddy"}, snippet: "caddyfile", log: "/var/log/caddy/access.log",
		args: []string{"run", "--config", "$DIR/config", "--adapter", "caddyfile"}, format: Caddy, end: syscall.SIGTERM,
		config: `{
	admin off
	auto_https off
	http_port $PORT
}
http://:$PORT {
	bind 127.0.0.1
$SNIPPET
	root * $DIR/root
	handle /app/* {
		reverse_proxy $APP
	}
	handle /missing/* {
		error 404
	}
	handle {
		header Cache-Control "public, max-age=600"
		header Cache-Tag "t1, t2"
		try_files {path} /index.html
		file_server
	}
	handle_errors {
		header Cache-Control "max-age=33"
		rewrite * /404.html
		file_server
	}
}
`,
	},
}

// TestServers runs the servers with what formats.md tells people to configure,
// asks them for awkward targets, and reads what they log.
func TestServers(t *testing.T) {
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			program := ""
			for _, p := range s.programs {
				if found, err := exec.LookPath(p); program == "" && err == nil {
					program = found
				}
			}
			if program == "" {
				t.Skipf("%s is missing", s.programs[0])
			}
			a := &app{times: map[string][2]time.Time{}}
			origin := httptest.NewServer(a)
			defer origin.Close()
			dir, stop := start(t, program, s, origin.Listener.Addr().String())
			before := time.Now()
			for _, target := range targets {
				ask(t, dir, target.target)
			}
			after := time.Now()
			stop()

			for file, format := range s.logs() {
				data, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				if *capture {
					if err := os.WriteFile(filepath.Join("testdata", name+"-"+file), data, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				for path, l := range checkLog(t, data, format) {
					at := l.Sighting
					if at.Start.After(after) || at.End.Before(before) {
						t.Errorf("%s: %s from %v to %v, asked from %v to %v", file, path, at.Start, at.End, before, after)
					}
					origin, ok := a.times[path]
					if ok && (at.Start.After(origin[0]) || at.End.Before(origin[1])) {
						t.Errorf("%s: %s from %v to %v, but the application had it from %v to %v", file, path, at.Start, at.End, origin[0], origin[1])
					}
				}
			}
		})
	}
}

// TestCaptured reads what the servers have once logged.
func TestCaptured(t *testing.T) {
	for name, s := range servers {
		for file, format := range s.logs() {
			t.Run(name+"-"+file, func(t *testing.T) {
				data, err := os.ReadFile(filepath.Join("testdata", name+"-"+file))
				if err != nil {
					t.Fatal(err)
				}
				for path, l := range checkLog(t, data, format) {
					if path == "/app/slow" && !l.StartAssumed && l.Sighting.End.Sub(l.Sighting.Start) < slow {
						t.Errorf("it lasted from %v to %v, but took %v", l.Sighting.Start, l.Sighting.End, slow)
					}
				}
			})
		}
	}
}

func (s *server) logs() map[string]Format {
	logs := map[string]Format{filepath.Base(s.log): s.format}
	for file, format := range s.also {
		logs[file] = format
	}
	return logs
}

// checkLog checks that the log has one line for each target and says the right
// thing of it. The lines may be in any order: Apache has several processes. It
// returns them by path.
func checkLog(t *testing.T, data []byte, format Format) map[string]Line {
	t.Helper()
	r := NewReader(bytes.NewReader(data), string(format), nil)
	outcomes, lines := readAll(t, r)
	byPath := map[string]Line{}
	for _, l := range lines {
		byPath[l.Sighting.Path] = l
	}
	if len(outcomes) != len(targets) || len(byPath) != len(lines) {
		t.Errorf("%s: %d lines, %d different sightings for %d targets: %.200q", format, len(outcomes), len(byPath), len(targets), outcomes)
	}
	if got := r.Summary().Format; got != format {
		t.Errorf("%s is taken for %s", format, got)
	}
	told := format == CFTrack || format == Caddy
	for _, asked := range targets {
		want, err := cfpath.FromTarget(asked.target)
		if err != nil {
			t.Fatal(err)
		}
		l, ok := byPath[want]
		if format == Caddy && strings.Contains(asked.target, "\xff") {
			if ok || !slices.ContainsFunc(outcomes, func(o string) bool { return strings.HasPrefix(o, "malformed") && strings.Contains(o, "not UTF-8") }) {
				t.Errorf("%s: %q is not malformed: %.200q", format, asked.target, outcomes)
			}
			continue
		}
		if !ok {
			t.Errorf("%s: %.100q is not there as %.100q: %.200q", format, asked.target, want, outcomes)
			continue
		}
		if l.StartAssumed == told || l.LifetimeAssumed == told {
			t.Errorf("%s: %.100q: start assumed %v, lifetime assumed %v", format, asked.target, l.StartAssumed, l.LifetimeAssumed)
		}
		if life := l.Sighting.Expires.Sub(l.Sighting.End); told && life != 2*asked.life+lifetime.DefaultMargin {
			t.Errorf("%s: %.100q: lifetime %v, want twice %v and the margin", format, asked.target, life, asked.life)
		}
		if tags := slices.Sorted(slices.Values(l.Sighting.Tags)); told && strings.Join(tags, " ") != asked.tags {
			t.Errorf("%s: %.100q: tags %q, want %q", format, asked.target, tags, asked.tags)
		}
	}
	return byPath
}

// start starts a server, with its port in DIR/port.
func start(t *testing.T, program string, s server, origin string) (dir string, stop func()) {
	t.Helper()
	dir = t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // the servers' own user must get in
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"root/index.html": "index", "root/404.html": "not found", "root/dir/x.html": "x", "root/a b.html": "a b", "root/é.html": "é",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	_ = free.Close()
	replace := func(s string) string {
		root := "/usr/lib/apache2"
		if _, err := os.Stat(root); err != nil {
			root = "/etc/httpd"
		}
		return strings.NewReplacer("$DIR", dir, "$PORT", port, "$APP", origin, "$ROOT", root).Replace(s)
	}
	snippet := strings.ReplaceAll(block(t, s.snippet), s.log, filepath.Join(dir, filepath.Base(s.log)))
	config := replace(strings.ReplaceAll(s.config, "$SNIPPET", snippet))
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "port"), []byte(port), 0o644); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range s.args {
		args = append(args, replace(a))
	}
	var output bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Signal(s.end)
			<-ended
		}
	}
	t.Cleanup(stop)
	giveUp, again := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
	defer again.Stop()
	for {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			_ = c.Close()
			return dir, stop
		}
		select {
		case err := <-ended:
			stopped = true
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Fatalf("%s ended: %v\n%s%s", program, err, output.Bytes(), log)
		case <-giveUp:
			t.Fatalf("%s does not answer\n%s", program, output.Bytes())
		case <-again.C:
		}
	}
}

// block returns the block of formats.md in a language.
func block(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile("formats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```"+language+"\n")
	snippet, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("formats.md has no block in %s", language)
	}
	return snippet
}

// ask sends one request, its target as it is, and reads the whole answer.
func ask(t *testing.T, dir, target string) {
	t.Helper()
	port, err := os.ReadFile(filepath.Join(dir, "port"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+string(port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: www.example.com:8080\r\nConnection: close\r\n"+
		"User-Agent: te\"st \\ agent\r\nReferer: http://r/\"] \"GET /evil HTTP/1.1\" 200\r\n\r\n", target)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%.100q: %v", target, err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Fatal(err)
	}
	if want := strings.Contains(target, "/missing/"); (res.StatusCode == 404) != want || res.StatusCode != 200 && !want {
		t.Fatalf("%.100q: %s", target, res.Status)
	}
}
