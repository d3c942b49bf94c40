// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// TestLeaderIsPaused stops the dispatcher that leads at some moment of a call,
// lets another one take over and finish, and wakes the first, which has no idea.
func TestLeaderIsPaused(t *testing.T) {
	t.Parallel()
	for i, tc := range []struct {
		name  string
		fault func() *simulator.Fault // what becomes of the call
	}{
		{"CloudFront answers it", func() *simulator.Fault { return nil }},
		{"its request is lost", simulator.LostRequest},
		{"its answer is lost", simulator.LostAnswer},
	} {
		for j, b := range backends {
			t.Run(tc.name+"/"+b.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 1400+10*i+j, b)
				all := pages("page", 200)
				w.importAll(all)
				w.fill(all)
				w.publish()
				if w.redis == nil {
					// Whoever has the embedded store must not be the one that sleeps.
					owner := w.start(nil, "record", "-")
					w.feedAll(owner, "\n")
					w.until("there is an owner", func() bool { return w.lockedBy(owner) }, owner)
				}
				running, stopped := make(chan *process, 1), make(chan *process, 1)
				w.atCreate(1+w.rng.IntN(5), func() *simulator.Fault {
					p := <-running
					if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
						t.Error(err)
					}
					stopped <- p
					return tc.fault()
				})
				p := w.start(strings.NewReader(""), "invalidate", "--all", "--exact", "--yes", "--batch=20")
				running <- p
				select {
				case <-stopped:
				case <-time.After(patience):
					t.Fatalf("nothing was sent: %s", p.stderr.tail())
				}
				w.must(nil, "resume")
				if p.ended() {
					t.Fatalf("the first was not paused: %v", p.cmd.ProcessState)
				}
				if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				if code := w.wait(p); code != 0 {
					t.Errorf("exit %d of the one that was paused: %s", code, p.stderr.String())
				}
				w.completed(all)
			})
		}
	}
}

// TestSeveralResume has several processes go on at once with what another one left
// when it was killed.
func TestSeveralResume(t *testing.T) {
	t.Parallel()
	for i, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1500+i, b)
			all := pages("page", 200)
			w.importAll(all)
			w.fill(all)
			w.publish()
			running := make(chan *process, 1)
			w.atCreate(3, func() *simulator.Fault {
				(<-running).kill()
				return simulator.LostAnswer()
			})
			p := w.start(strings.NewReader(""), "invalidate", "--all", "--exact", "--yes", "--batch=20")
			running <- p
			w.wait(p)
			var resumed []*process
			for range 3 {
				resumed = append(resumed, w.start(strings.NewReader(""), "resume"))
			}
			for _, p := range resumed {
				if code := w.wait(p); code != 0 {
					t.Errorf("exit %d: %s", code, p.stderr.String())
				}
			}
			w.completed(all)
		})
	}
}

// TestForeignPurger has the AWS command line purge the same distribution in the
// middle of ours. Both take from what CloudFront allows; ours ends, and counts its
// own.
func TestForeignPurger(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("aws is not installed")
	}
	w := newWorld(t, 1600, backends[0], func(o *simulator.Options) { o.Limits.Paths = 60 })
	all := pages("page", 150)
	w.importAll(all)
	w.fill(all)
	w.publish()
	aws := func(args ...string) []byte {
		t.Helper()
		p := w.startCommand("aws", nil, strings.NewReader(""), append([]string{"--output", "json", "cloudfront"}, args...)...)
		if code := w.wait(p); code != 0 {
			t.Fatalf("aws %v: exit %d: %s", args, code, p.stderr.String())
		}
		return []byte(p.stdout.String())
	}
	sending := make(chan struct{})
	var once sync.Once
	hook := func(op string, _ *http.Request) *simulator.Fault {
		if op == simulator.CreateInvalidation {
			once.Do(func() { close(sending) })
		}
		return nil
	}
	w.fault.Store(&hook)
	ours := w.start(strings.NewReader(""), "invalidate", "--all", "--exact", "--yes", "--batch=25", "--output=json")
	<-sending
	foreign := map[string]int{} // items, by ID
	for range 3 {
		paths := make([]string, 10+w.rng.IntN(20))
		for i := range paths {
			// Some of what we purge too, and some that nobody ever saw.
			paths[i] = all[w.rng.IntN(len(all))]
			if i%2 == 0 {
				paths[i] = fmt.Sprintf("/foreign/%d/%d", w.rng.Uint32(), i)
			}
		}
		var answer struct{ Invalidation struct{ Id string } }
		for deadline := time.Now().Add(patience); answer.Invalidation.Id == ""; {
			// It retries by itself, but not for long; there may be too much of ours.
			args := append([]string{"--output", "json", "cloudfront", "create-invalidation", "--distribution-id", distribution, "--paths"}, paths...)
			p := w.startCommand("aws", nil, strings.NewReader(""), args...)
			if code := w.wait(p); code == 0 {
				if err := json.Unmarshal([]byte(p.stdout.String()), &answer); err != nil {
					t.Fatal(err)
				}
			} else if !strings.Contains(p.stderr.String(), "TooManyInvalidationsInProgress") || time.Now().After(deadline) {
				t.Fatalf("aws: exit %d: %s", code, p.stderr.String())
			}
		}
		foreign[answer.Invalidation.Id] = len(paths)
	}
	if code := w.wait(ours); code != 0 {
		t.Fatalf("exit %d: %s", code, ours.stderr.String())
	}
	var r report
	if err := json.Unmarshal([]byte(ours.stdout.String()), &r); err != nil {
		t.Fatal(err)
	}
	if r.State != "completed" || r.Items != len(all) {
		t.Errorf("%+v", r)
	}
	var list struct {
		InvalidationList struct{ Items []struct{ Id string } }
	}
	if err := json.Unmarshal(aws("list-invalidations", "--distribution-id", distribution), &list); err != nil {
		t.Fatal(err)
	}
	if n := len(list.InvalidationList.Items); n != len(foreign)+len(r.Batches) {
		t.Errorf("CloudFront lists %d invalidations, want %d of others and %d of ours", n, len(foreign), len(r.Batches))
	}
	billed := len(all)
	for _, n := range foreign {
		billed += n
	}
	if n := w.sim.Billed(); n != billed {
		t.Errorf("%d items billed, want %d", n, billed)
	}
	for path, n := range w.sent() {
		if n != 1 {
			t.Errorf("%s was sent %d times", path, n)
		}
	}
	w.notStale(all)
	w.billedOnce()
}
