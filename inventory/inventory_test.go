// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func at(sec int64) time.Time { return time.Unix(sec, 0).UTC() }

func records() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		var r Record
		if rapid.Bool().Draw(t, "sighted") {
			s := Sighting{
				End:     at(rapid.Int64Range(1, 20).Draw(t, "end")),
				Expires: at(rapid.Int64Range(1, 40).Draw(t, "expires")),
				Tags:    rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, "tags"),
				Hits:    uint64(rapid.IntRange(1, 5).Draw(t, "hits")),
			}
			r = s.Record()
		}
		if rapid.Bool().Draw(t, "removed") {
			r = r.Merge(RemovedClaim(at(rapid.Int64Range(1, 20).Draw(t, "at"))))
		}
		if rapid.Bool().Draw(t, "ttl") {
			r = r.Merge(TTLClaim(at(rapid.Int64Range(1, 20).Draw(t, "ttlAt")),
				time.Duration(rapid.IntRange(0, 9).Draw(t, "for"))*time.Second))
		}
		return r
	})
}

// same compares records as a reader can: no tags are no tags, nil or empty.
func same(a, b Record) bool {
	if len(a.Tags) == 0 && len(b.Tags) == 0 {
		a.Tags, b.Tags = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

func TestMergeIsACommutativeMonoid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := records().Draw(t, "a"), records().Draw(t, "b"), records().Draw(t, "c")
		if x, y := a.Merge(b), b.Merge(a); !same(x, y) {
			t.Fatalf("not commutative: %+v, %+v", x, y)
		}
		if x, y := a.Merge(b).Merge(c), a.Merge(b.Merge(c)); !same(x, y) {
			t.Fatalf("not associative: %+v, %+v", x, y)
		}
		if x := a.Merge(Record{}); !same(x, a) {
			t.Fatalf("zero is not neutral: %+v", x)
		}
		again := a.Merge(b).Merge(b)
		again.Hits = a.Merge(b).Hits
		if !same(again, a.Merge(b)) {
			t.Fatalf("repeating changed more than hits: %+v", again)
		}
	})
}

func TestMergeLeavesItsArgumentsAlone(t *testing.T) {
	a := Sighting{End: at(1), Expires: at(9), Tags: []string{"b"}}.Record()
	b := Sighting{End: at(2), Expires: at(8), Tags: []string{"a"}}.Record()
	m := a.Merge(b)
	if !slices.Equal(m.Tags, []string{"a", "b"}) || !m.Mixed {
		t.Fatalf("merged = %+v", m)
	}
	if !slices.Equal(a.Tags, []string{"b"}) || !slices.Equal(b.Tags, []string{"a"}) {
		t.Fatalf("arguments changed: %v %v", a.Tags, b.Tags)
	}
}

func TestClaimsApplyOnReading(t *testing.T) {
	sight := Sighting{End: at(10), Expires: at(100)}.Record()
	for _, tc := range []struct {
		name  string
		claim Record
		now   time.Time
		live  bool
		end   time.Time
	}{
		{"none", Record{}, at(50), true, at(100)},
		{"at the end of life", Record{}, at(100), false, at(100)},
		{"a millisecond before it", Record{}, at(100).Add(-time.Millisecond), true, at(100)},
		{"removed later", RemovedClaim(at(11)), at(50), false, time.Time{}},
		{"removed before it was sighted", RemovedClaim(at(9)), at(50), true, at(100)},
		{"removed at the same instant", RemovedClaim(at(10)), at(50), true, at(100)},
		{"ttl shortens", TTLClaim(at(11), 5*time.Second), at(12), true, at(16)},
		{"ttl never lengthens", TTLClaim(at(11), time.Hour), at(50), true, at(100)},
		{"ttl 0 ends it", TTLClaim(at(11), 0), at(11), false, time.Time{}},
		{"ttl from before the sighting", TTLClaim(at(9), 0), at(50), true, at(100)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := tc.claim.Merge(sight)
			if got := r.Live(tc.now); got != tc.live {
				t.Fatalf("Live = %v", got)
			}
			if tc.live && !r.Entry("/").Expires.Equal(tc.end) {
				t.Fatalf("expires %v, want %v", r.Entry("/").Expires, tc.end)
			}
		})
	}
}

func TestClaimsOutliveWhatTheyRemoved(t *testing.T) {
	r := RemovedClaim(at(11)).Merge(Sighting{End: at(10), Expires: at(100)}.Record())
	if r.Dead(at(12)) {
		t.Fatal("dropped while a resent sighting could still bring the path back")
	}
	if !r.Dead(at(12).Add(ClaimKeep)) {
		t.Fatal("kept for ever")
	}
}

func TestNewestTTLWins(t *testing.T) {
	r := Sighting{End: at(1), Expires: at(1000)}.Record().
		Merge(TTLClaim(at(20), 100*time.Second)).Merge(TTLClaim(at(10), time.Second))
	if got := r.Entry("/").Expires; !got.Equal(at(120)) {
		t.Fatalf("expires %v", got)
	}
}

func TestManyTagsAreMixed(t *testing.T) {
	tags := make([]string, NativeTags+1)
	for i := range tags {
		tags[i] = string(rune('A' + i))
	}
	if r := (Sighting{End: at(1), Expires: at(2), Tags: tags}).Record(); !r.Mixed || len(r.Tags) != len(tags) {
		t.Fatalf("mixed %v with %d tags", r.Mixed, len(r.Tags))
	}
	if r := (Sighting{End: at(1), Expires: at(2), Tags: tags[:NativeTags]}).Record(); r.Mixed {
		t.Fatal("50 tags are within what CloudFront stores")
	}
}

func TestEncodingRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := records().Draw(t, "a"), records().Draw(t, "b")
		var got Record
		if err := got.Decode(a.Append(nil)); err != nil || !same(got, a) {
			t.Fatalf("%+v became %+v: %v", a, got, err)
		}
		enc, err := MergeEncoded(a.Append(nil), b.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		want := a.Merge(b)
		if !bytes.Equal(enc, want.Append(nil)) {
			t.Fatalf("merged encodings differ for %+v and %+v", a, b)
		}
	})
}

func TestOversizedTagsAreLeftOutHonestly(t *testing.T) {
	r := Sighting{End: at(1), Expires: at(2), Tags: []string{"ok", string(make([]byte, MaxTag+1))}}.Record()
	var got Record
	if err := got.Decode(r.Append(nil)); err != nil || !got.Mixed || !slices.Equal(got.Tags, []string{"ok"}) {
		t.Fatalf("%+v, %v", got.Tags, err)
	}
}

func FuzzDecode(f *testing.F) {
	r := Sighting{End: at(1), Expires: at(2), Tags: []string{"a", "b"}}.Record().Merge(RemovedClaim(at(1)))
	f.Add(r.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.Decode(b) != nil {
			return
		}
		var again Record
		if err := again.Decode(r.Append(nil)); err != nil || !same(r, again) {
			t.Fatalf("%+v became %+v: %v", r, again, err)
		}
	})
}

func BenchmarkMergeEncoded(b *testing.B) {
	x := Sighting{End: at(1), Expires: at(20)}.Record()
	y := Sighting{End: at(2), Expires: at(10)}.Record()
	dst, src := x.Append(nil), y.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := MergeEncoded(dst, src); err != nil {
			b.Fatal(err)
		}
	}
}
