// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"testing"
	"time"
)

// A request takes its end before it gets the lock. If a drain comes between, the
// session says that everything from before the drain is stored.
func TestWhatADrainDidNotFindEndedAfterIt(t *testing.T) {
	tr := &Tracker{opts: Options{Buffer: 1}}
	sh := &shard{entries: make(map[string]*entry), drained: instant(time.Second)}
	e := tr.sight(sh, nil, "/a", &sighting{start: 1, end: 2, life: time.Hour})
	if e.span.start != 1 || e.span.end != sh.drained || e.pending.Last != 1000 {
		t.Fatalf("span %+v, last %d", e.span, e.pending.Last)
	}
}

func TestTooManySpansAreJoined(t *testing.T) {
	var tr Tracker
	e := new(entry)
	for i := range instant(3 * maxSpans) {
		e.span = span{start: i, end: i + 1, tags: []string{"t"}}
		tr.keep(e)
	}
	last := e.kept[maxSpans-1]
	if len(e.kept) != maxSpans || e.kept[0].end != 1 || last.start != maxSpans-1 || last.end != 3*maxSpans {
		t.Fatalf("%d spans, the last %+v", len(e.kept), last)
	}
	if len(tr.loop.held) != 1 {
		t.Fatalf("held %d times", len(tr.loop.held))
	}
}
