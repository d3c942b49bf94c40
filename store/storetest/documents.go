// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

func (s *suite) commitConditions() {
	big := bytes.Repeat([]byte{0, 1, 0xff}, 100_000)
	v := s.commit("d", store.Transaction{
		Require: []store.Requirement{{Key: "a"}, {Key: "b"}},
		Put:     []store.Put{{Key: "a", Value: []byte("1")}, {Key: "empty"}, {Key: "big", Value: big}},
	})
	big[0]++ // what the caller does with it later is its own business
	w := s.commit("d", store.Transaction{
		Require: []store.Requirement{{Key: "a", Version: v}},
		Put:     []store.Put{{Key: "a", Value: []byte("2")}},
	})
	for name, require := range map[string][]store.Requirement{
		"an old version":       {{Key: "a", Version: v}},
		"a version to come":    {{Key: "a", Version: w + 1}},
		"there is one":         {{Key: "a"}},
		"there is none":        {{Key: "b", Version: w}},
		"one of two":           {{Key: "a", Version: w}, {Key: "big", Version: w}},
		"of elsewhere":         {{Key: "a", Version: w}, {Key: "/path", Version: v}},
		"a prefix":             {{Key: "bi", Version: v}},
		"a key of other bytes": {{Key: "a\x00", Version: w}},
	} {
		_, err := s.store.Commit(s.Context(), "d", store.Transaction{
			Require: require, Put: []store.Put{{Key: "a", Value: []byte("no")}, {Key: "c"}}, Delete: []string{"big"},
		})
		if !errors.Is(err, store.ErrConflict) {
			s.Errorf("%s: %v, want ErrConflict", name, err)
		}
	}
	if _, err := s.store.Commit(s.Context(), "other", store.Transaction{Require: []store.Requirement{{Key: "a", Version: w}}}); !errors.Is(err, store.ErrConflict) {
		s.Errorf("another distribution has the document: %v", err)
	}
	big[0]--
	docs := s.list("d", "", "", 0)
	if len(docs) != 3 || docs[0].Key != "a" || string(docs[0].Value) != "2" || docs[0].Version != w ||
		docs[1].Key != "big" || !bytes.Equal(docs[1].Value, big) || docs[1].Version != v ||
		docs[2].Key != "empty" || len(docs[2].Value) != 0 || docs[2].Version != v {
		s.Errorf("documents are wrong: %d", len(docs))
	}
	x := s.commit("d", store.Transaction{
		Require: []store.Requirement{{Key: "a", Version: w}, {Key: "none"}},
		Put:     []store.Put{{Key: "c"}}, Delete: []string{"a", "never there"},
	})
	docs = s.list("d", "", "", 0)
	if len(docs) != 3 || docs[0].Key != "big" || docs[1].Key != "c" || docs[1].Version != x {
		s.Errorf("documents %d after a deletion", len(docs))
	}
}

// commitCounts: no increment is lost between any number of committers.
func (s *suite) commitCounts() {
	const committers, increments = 4, 25
	handles := s.handles(3)
	var wg sync.WaitGroup
	for c := range committers {
		st := handles[c%len(handles)]
		wg.Go(func() {
			for done := 0; done < increments; {
				docs, err := st.List(s.Context(), "d", "counter", "", 1)
				if err != nil {
					s.Errorf("List: %v", err)
					return
				}
				n, version := 0, uint64(0)
				if len(docs) == 1 {
					version = docs[0].Version
					if n, err = strconv.Atoi(string(docs[0].Value)); err != nil {
						s.Errorf("the counter: %v", err)
						return
					}
				}
				got, err := st.Commit(s.Context(), "d", store.Transaction{
					Require: []store.Requirement{{Key: "counter", Version: version}},
					Put:     []store.Put{{Key: "counter", Value: []byte(strconv.Itoa(n + 1))}},
				})
				switch {
				case errors.Is(err, store.ErrConflict):
				case err != nil:
					s.Errorf("Commit: %v", err)
					return
				case got <= version:
					s.Errorf("version %d after %d", got, version)
					return
				default:
					done++
				}
			}
		})
	}
	wg.Wait()
	if docs := s.list("d", "counter", "", 0); len(docs) != 1 || string(docs[0].Value) != strconv.Itoa(committers*increments) {
		s.Errorf("the counter is %+v, want %d", docs, committers*increments)
	}
}

// commitIsOneView: what was put together is seen together.
func (s *suite) commitIsOneView() {
	handles := s.handles(2)
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := make(chan struct{})
	defer close(stop)
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			value := strconv.Itoa(i)
			t := store.Transaction{Put: puts([]string{"a", "m", "z"}, value)}
			if i%2 == 1 {
				t.Delete = []string{"even"}
			} else {
				t.Put = append(t.Put, store.Put{Key: "even", Value: []byte(value)})
			}
			if _, err := handles[0].Commit(s.Context(), "d", t); err != nil {
				s.Errorf("Commit: %v", err)
				return
			}
		}
	})
	for range 100 {
		docs, err := handles[1].List(s.Context(), "d", "", "", 0)
		s.must(err)
		for _, d := range docs {
			if d.Version != docs[0].Version || !bytes.Equal(d.Value, docs[0].Value) {
				s.Fatalf("two transactions in one view: %+v", docs)
			}
		}
		if len(docs) > 0 {
			if n, err := strconv.Atoi(string(docs[0].Value)); err != nil || len(docs) != 4-n%2 {
				s.Fatalf("half a transaction in view: %+v", docs)
			}
		}
	}
}

func (s *suite) versionsGrow() {
	handles := s.handles(2)
	last := uint64(0)
	for i := range 12 {
		t := store.Transaction{Put: []store.Put{{Key: "k"}}}
		if i%3 == 2 {
			t = store.Transaction{Delete: []string{"k"}}
		}
		v, err := handles[i%2].Commit(s.Context(), "d", t)
		s.must(err)
		if v <= last {
			s.Fatalf("version %d after %d", v, last)
		}
		last = v
	}
}

func (s *suite) listing() {
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("a/%02d", i))
	}
	all := append([]string{"a", "a.", "a0", "b/00"}, keys...)
	slices.Sort(all)
	v := s.commit("d", store.Transaction{Put: puts(all, "v")})
	for _, tc := range []struct {
		prefix, after string
		limit         int
	}{
		{"", "", 0}, {"", "", 1}, {"", "", 1000}, {"a/", "", 0}, {"a/", "", 10}, {"a/", "a/09", 10}, {"a/", "a/24", 10},
		{"a/", "a/0", 5}, {"a/", "a/09\x00", 5}, {"a/", "a", 3}, {"a/", "b", 3}, {"a/", "a0", 3}, {"", "a/24", 0}, {"c", "", 0}, {"a/00", "a/00", 0}, {"", "zzz", 0},
	} {
		want := filter(all, func(k string) bool { return strings.HasPrefix(k, tc.prefix) && k > tc.after })
		if tc.limit > 0 {
			want = want[:min(tc.limit, len(want))]
		}
		var got []string
		for _, d := range s.list("d", tc.prefix, tc.after, tc.limit) {
			if got = append(got, d.Key); d.Version != v || string(d.Value) != "v" {
				s.Errorf("document %+v", d)
			}
		}
		s.wantPaths(got, want)
	}
	if docs := s.list("elsewhere", "", "", 0); len(docs) != 0 {
		s.Errorf("documents of another distribution: %v", docs)
	}
}
