// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Foreign is what somebody else invalidates in the distribution meanwhile: a deployment, a colleague at
// the console. It takes up the limits that the callers of the control API share, stands in the list of
// invalidations, and removes objects. The zero value is nobody. What is refused is not tried again.
type Foreign struct {
	// Rate is the number of batches a second on average; they come at random moments.
	Rate float64
	// Paths and Wildcards are in each batch.
	Paths, Wildcards int
	// From are the items that are drawn from, at random and with repetition: exact paths, tags and
	// wildcards. Where a kind is missing, paths below /somebody-else/ are made up.
	From []string
}

// ParseForeign reads what somebody else does as "cftrack simulate --foreign" takes it, such as
// "rate=0.1,paths=20,wildcards=1". From is not among the settings.
func ParseForeign(text string) (Foreign, error) {
	var f Foreign
	if err := parseSettings("foreign", text, nil, &f, []setting{
		numberSetting("rate", &f.Rate), countSetting("paths", &f.Paths), countSetting("wildcards", &f.Wildcards),
	}); err != nil {
		return Foreign{}, err
	}
	if err := f.validate(); err != nil {
		return Foreign{}, err
	}
	return f, nil
}

func (f Foreign) validate() error {
	switch {
	case !(f.Rate >= 0 && f.Rate <= 1000):
		return fmt.Errorf("foreign: Rate is %v: give 0 to 1,000 batches a second", f.Rate)
	case f.Paths < 0 || f.Wildcards < 0 || f.Paths > 3000 || f.Wildcards > 3000:
		return fmt.Errorf("foreign: %d paths and %d wildcards in a batch: give 0 to 3,000", f.Paths, f.Wildcards)
	case f.Rate > 0 && f.Paths+f.Wildcards == 0:
		return errors.New("foreign: there is a rate, but nothing in a batch: set Paths or Wildcards")
	}
	for _, it := range f.From {
		if _, err := cfpath.ParseItem(it); err != nil {
			return fmt.Errorf("foreign: item %q: %w", it, err)
		}
	}
	return nil
}

// batch draws the items of one batch.
func (f *Foreign) batch(r *rand.Rand) []string {
	var paths, wildcards []string
	for _, it := range f.From {
		if strings.HasSuffix(it, "*") && !strings.HasPrefix(it, "#") {
			wildcards = append(wildcards, it)
		} else {
			paths = append(paths, it)
		}
	}
	items := make([]string, 0, f.Paths+f.Wildcards)
	draw := func(n int, from []string, suffix string) {
		for range n {
			if x := r.Uint64(); len(from) > 0 {
				items = append(items, from[x%uint64(len(from))])
			} else {
				items = append(items, fmt.Sprintf("/%s/%08x%s", SomebodyElse, uint32(x), suffix))
			}
		}
	}
	draw(f.Paths, paths, "")
	draw(f.Wildcards, wildcards, "/*")
	return items
}

// runForeign sends the batches of somebody else until the simulator closes.
func (s *Simulator) runForeign(f Foreign, r *rand.Rand) {
	// Distances between independent events are distributed exponentially.
	gap := func() time.Duration {
		return time.Duration(min(max(r.ExpFloat64()/f.Rate*float64(time.Second), 1), math.MaxInt64/4))
	}
	for s.sleep(s.ctx, gap()) {
		_, _ = s.foreign(f.batch(r)) // what is refused is in the log
	}
}

// Invalidate has somebody else create an invalidation of the distribution, as at the console: not over
// the wire, so that neither Options.Weather nor Options.Intercept touches it. It counts in the limits like
// any other; the text of an error begins with CloudFront's code. The caller is SomebodyElse in Log
// and in Invalidations.
func (s *Simulator) Invalidate(items ...string) (Invalidation, error) {
	if !s.enter() {
		return Invalidation{}, errors.New("simulator: invalidate after close")
	}
	defer s.active.Done()
	return s.foreign(items)
}

func (s *Simulator) foreign(items []string) (Invalidation, error) {
	c := &Call{Time: time.Now(), Operation: CreateInvalidation, Caller: SomebodyElse, Target: s.opts.Distribution}
	s.mu.Lock()
	s.foreigners++
	c.Reference = fmt.Sprintf("%s-%d", SomebodyElse, s.foreigners)
	err := s.admit(c)
	s.mu.Unlock()
	var inv Invalidation
	if err == nil && len(items) == 0 {
		err = noItems()
	}
	if err == nil {
		inv, err = s.accept(scope{id: s.opts.Distribution}, c.Reference, append([]string(nil), items...), c)
	}
	p := reply{status: http.StatusCreated}
	if err != nil {
		p = failed(err)
	}
	s.decided(c, p)
	return inv, err
}
