// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import "strings"

// globs are patterns with a '*' elsewhere than at the end. Of many, only those are
// tried on a path that may match it: each is filed under a few bytes of one of its
// literals, by preference bytes that few others have, and the path is looked
// through for these once.
type globs struct {
	all   []glob
	heads ordered // what they begin with; of several only the shortest
	files []file  // none where trying them all is as fast
}

// A file is an index by so many bytes.
type file struct {
	size  uint
	shift uint     // of a hash, to a bit's number
	bits  []uint64 // which hashes occur
	globs map[uint64][]int32
}

// few globs are all tried: that is as fast.
const few = 8

// sizes of files, best first: eight bytes tell most things apart.
var sizes = [...]uint{8, 4, 2, 1}

func (g *globs) finish() {
	for i := range g.all {
		g.heads.list = append(g.heads.list, g.all[i].head)
	}
	g.heads.finish()
	g.heads.list = shortest(g.heads.list)
	if len(g.all) <= few {
		return
	}
	// How often each gram occurs, to file under the rarest.
	counts := make(map[uint64]int32)
	for i := range g.all {
		size := g.all[i].gramSize()
		g.all[i].grams(size, func(k uint64) { counts[k^uint64(size)]++ })
	}
	files := make(map[uint]*file)
	for i := range g.all {
		size := g.all[i].gramSize()
		var best uint64
		least := int32(-1)
		g.all[i].grams(size, func(k uint64) {
			if n := counts[k^uint64(size)]; least < 0 || n < least {
				best, least = k, n
			}
		})
		f := files[size]
		if f == nil {
			f = &file{size: size, globs: make(map[uint64][]int32)}
			files[size] = f
		}
		f.globs[best] = append(f.globs[best], int32(i))
	}
	for _, size := range sizes {
		if f := files[size]; f != nil {
			f.finish()
			g.files = append(g.files, *f)
		}
	}
}

// finish makes the bits: sixteen or more for each key.
func (f *file) finish() {
	log := uint(6)
	for 1<<log < 16*len(f.globs) {
		log++
	}
	f.shift, f.bits = 64-log, make([]uint64, 1<<(log-6))
	for k := range f.globs {
		h := spread(k) >> f.shift
		f.bits[h/64] |= 1 << (h % 64)
	}
}

// spread is the multiplicative hash by the golden ratio.
func spread(k uint64) uint64 { return k * 0x9E3779B97F4A7C15 }

// gramSize is the largest size of which a literal has a gram. There is a literal:
// nothing but '*' is a prefix.
func (g *glob) gramSize() uint {
	longest := max(len(g.head), len(g.tail))
	for _, m := range g.middle {
		longest = max(longest, len(m))
	}
	for _, size := range sizes {
		if longest >= int(size) {
			return size
		}
	}
	return 1
}

// grams calls f with every run of so many bytes of its literals.
func (g *glob) grams(size uint, f func(uint64)) {
	each := func(literal string) {
		var k uint64
		for i := range len(literal) {
			k = k>>8 | uint64(literal[i])<<56
			if i+1 >= int(size) {
				f(k >> (64 - 8*size))
			}
		}
	}
	each(g.head)
	each(g.tail)
	for _, m := range g.middle {
		each(m)
	}
}

// match tells whether one of them matches the path, or, if it has a query, what
// stands before that. below wants one that goes on matching whatever follows the path.
func (g *globs) match(path, stem string, query, below bool) bool {
	if len(g.files) == 0 {
		for i := range g.all {
			if g.all[i].tried(path, stem, query, below) {
				return true
			}
		}
		return false
	}
	for n := range g.files {
		f := &g.files[n]
		if len(path) < int(f.size) {
			continue
		}
		down := 64 - 8*f.size
		var k uint64
		for i := range len(path) {
			k = k>>8 | uint64(path[i])<<56
			h := spread(k>>down) >> f.shift
			if f.bits[h/64]>>(h%64)&1 == 0 || i+1 < int(f.size) {
				continue
			}
			for _, j := range f.globs[k>>down] {
				if g.all[j].tried(path, stem, query, below) {
					return true
				}
			}
		}
	}
	return false
}

// tried is match for one.
func (g *glob) tried(path, stem string, query, below bool) bool {
	return (!below || g.tail == "") && g.match(path) || query && g.match(stem)
}

// matchBelow tells whether one of them matches a string that begins with prefix:
// its first '*' swallows whatever the prefix has more than its head.
func (g *globs) matchBelow(prefix string) bool {
	return g.heads.begins(prefix) || g.heads.begun(prefix)
}

// A glob is head*middle[0]*…*tail.
type glob struct {
	head, tail string
	middle     []string
	length     int // of all the literals
}

// newGlob takes a pattern with at least one '*'.
func newGlob(pattern string) glob {
	parts := strings.Split(pattern, "*")
	g := glob{head: parts[0], tail: parts[len(parts)-1], length: len(pattern) - len(parts) + 1}
	for _, p := range parts[1 : len(parts)-1] {
		if p != "" {
			g.middle = append(g.middle, p)
		}
	}
	return g
}

// match takes each literal at its first place, which leaves most to the next;
// so nothing is tried twice.
func (g *glob) match(path string) bool {
	if len(path) < g.length || !strings.HasPrefix(path, g.head) || !strings.HasSuffix(path, g.tail) {
		return false
	}
	rest := path[len(g.head) : len(path)-len(g.tail)]
	for _, m := range g.middle {
		i := strings.Index(rest, m)
		if i < 0 {
			return false
		}
		rest = rest[i+len(m):]
	}
	return true
}
