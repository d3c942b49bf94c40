// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetime_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/storetime"
)

// remote is a clock that is off by offset and reached over a slow line.
type remote struct {
	offset    time.Duration
	out, back time.Duration
	err       error
}

func (r *remote) Now(context.Context) (time.Time, error) {
	time.Sleep(r.out)
	now := time.Now().Add(r.offset)
	time.Sleep(r.back)
	return now, r.err
}

func sync(t *testing.T, c *storetime.Clock, r *remote) {
	t.Helper()
	if err := c.Sync(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// off is how far the clock is from the remote one.
func off(c *storetime.Clock, r *remote) time.Duration {
	return c.Now().Sub(time.Now().Add(r.offset))
}

func TestUnsynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c storetime.Clock
		if c.Synced() || c.Skew() != storetime.Unknown || !c.Now().Equal(time.Now()) {
			t.Fatalf("synced %v, skew %v, now %v", c.Synced(), c.Skew(), c.Now())
		}
		down := errors.New("down")
		if err := c.Sync(t.Context(), &remote{err: down}); !errors.Is(err, down) || c.Synced() {
			t.Fatalf("Sync = %v, synced %v", err, c.Synced())
		}
	})
}

func TestTheErrorIsWithinTheSkew(t *testing.T) {
	for _, r := range []remote{
		{offset: time.Minute},
		{offset: -time.Hour, out: 40 * time.Millisecond, back: 40 * time.Millisecond},
		{offset: time.Second, out: 90 * time.Millisecond},
		{offset: time.Second, back: 90 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			var c storetime.Clock
			sync(t, &c, &r)
			if d := off(&c, &r); max(d, -d) > c.Skew() {
				t.Errorf("%+v: off by %v, skew %v", r, d, c.Skew())
			}
			if want := (r.out + r.back) / 2; c.Skew() < want || c.Skew() > want+time.Millisecond {
				t.Errorf("%+v: skew %v, want about %v", r, c.Skew(), want)
			}
			time.Sleep(10 * time.Second)
			if grown := c.Skew() - (r.out+r.back)/2; grown < time.Millisecond || grown > 10*time.Millisecond {
				t.Errorf("%+v: skew grew by %v in 10 s", r, grown)
			}
		})
	}
}

func TestAWorseMeasurementIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c storetime.Clock
		good := remote{offset: time.Minute}
		sync(t, &c, &good)
		time.Sleep(time.Second)
		sync(t, &c, &remote{offset: time.Minute, back: time.Second})
		if d := off(&c, &good); d != 0 {
			t.Fatalf("off by %v after a slow measurement that told nothing new", d)
		}
	})
}

func TestAContradictionWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c storetime.Clock
		sync(t, &c, &remote{offset: time.Minute})
		set := remote{offset: -time.Minute, out: 5 * time.Millisecond, back: 5 * time.Millisecond}
		sync(t, &c, &set)
		if d := off(&c, &set); max(d, -d) > c.Skew() {
			t.Fatalf("off by %v, skew %v: the store's clock was set and nobody noticed", d, c.Skew())
		}
	})
}

// sleeper is a store whose caller is stopped (SIGSTOP, say) while it asks.
type sleeper struct {
	remote
	sleeps []time.Duration // what remains of them
}

func (s *sleeper) Now(ctx context.Context) (time.Time, error) {
	now, err := s.remote.Now(ctx)
	if len(s.sleeps) > 0 {
		time.Sleep(s.sleeps[0])
		s.sleeps = s.sleeps[1:]
	}
	return now, err
}

// Half of what it slept is not how late it is.
func TestAMeasurementThatWasSleptOverIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, synced := range []bool{false, true} {
			var c storetime.Clock
			src := &sleeper{remote: remote{offset: time.Minute, out: time.Millisecond, back: time.Millisecond}}
			if synced {
				sync(t, &c, &src.remote)
				src.offset = -time.Minute // it was set while its caller slept, so that nothing that is known holds
			}
			src.sleeps = []time.Duration{2 * time.Hour}
			if err := c.Sync(t.Context(), src); err != nil {
				t.Fatal(err)
			}
			if d := off(&c, &src.remote); max(d, -d) > time.Millisecond || c.Skew() > 2*time.Millisecond {
				t.Errorf("synced before: %v: it is %v off, and says %v", synced, d, c.Skew())
			}
		}
		// A store that is always slow is believed, by the best that it did.
		var c storetime.Clock
		src := &sleeper{sleeps: []time.Duration{30 * time.Second, 10 * time.Second, 20 * time.Second, time.Millisecond}}
		if err := c.Sync(t.Context(), src); err != nil || len(src.sleeps) != 1 {
			t.Fatalf("%v, %d measurements", err, 4-len(src.sleeps))
		}
		if d := off(&c, &src.remote); d != -5*time.Second {
			t.Errorf("it is %v off", d)
		}
	})
}

func TestFromLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c storetime.Clock
		start := time.Now()
		time.Sleep(time.Second)
		sync(t, &c, &remote{offset: time.Hour})
		if got, want := c.FromLocal(start), start.Add(time.Hour); !got.Equal(want) || got.Location() != time.UTC {
			t.Fatalf("FromLocal = %v, want %v", got, want)
		}
	})
}
