// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

// TestFullDisk fills the disk under a server. It goes on serving and says that
// nothing is stored; what does not fit into its buffer is a gap. Once there is
// room again it stores what it kept, and what was acknowledged before is there.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("mount: a small file system of the test's own is made as Linux does")
	}
	for i, tc := range []struct {
		name, buffer string
		gap          bool
	}{
		{"what comes meanwhile is kept", "100000", false},
		{"more comes than is kept", "200", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			disk := t.TempDir()
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m", "cftrack", disk).CombinedOutput(); err != nil {
				t.Skipf("mount: %v: %s", err, out)
			}
			t.Cleanup(func() {
				if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
					t.Errorf("%v: %s", err, out)
				}
			})
			w := newWorld(t, 1700+i, backend{"disk", func(w *world) { w.env = append(w.env, "CFTRACK_STORE=file:"+disk+"/store") }})
			s := w.serve(envBuffer + "=" + tc.buffer)
			v := w.view("seen")
			w.until("viewers are served", func() bool { return v.count() > 50 }, s.process)
			acknowledged, ok := s.flush(t)
			if !ok {
				t.Fatal("not flushed")
			}

			filler := disk + "/filler"
			fill(t, filler)
			w.until("the server says that the store fails", func() bool {
				h, ok := s.health(t)
				return ok && h.Err != ""
			}, s.process)
			before := v.count()
			w.until("viewers are served all the same", func() bool { return v.count() > before+300 }, s.process)
			if h, ok := s.health(t); !ok || (h.Lost > 0) != tc.gap {
				t.Errorf("%+v", h)
			}
			for _, p := range []string{"/again/1", "/again/2"} {
				if len(w.ask(0, p)) == 0 {
					t.Errorf("the server does not answer %s", p)
				}
			}

			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			w.until("all is stored", func() bool {
				h, _ := s.health(t)
				return h.Err == ""
			}, s.process)
			before = v.count()
			w.until("viewers are served as before", func() bool { return v.count() > before+20 }, s.process)
			v.stop()
			last, ok := s.flush(t)
			if !ok {
				t.Fatal("not flushed")
			}
			if tc.gap {
				w.explained(w.list(), "buffer-full")
			} else {
				acknowledged = append(acknowledged, last...)
				if gaps := w.gaps(); len(gaps) > 0 {
					t.Errorf("everything was kept, and there are gaps: %+v", gaps)
				}
			}
			s.kill()
			if gone := missing(acknowledged, w.list()); gone != nil {
				t.Errorf("acknowledged, and gone: %q", gone)
			}
		})
	}
}

// fill writes a file until there is no room for more.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		switch _, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
}
