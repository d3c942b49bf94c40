// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"compress/gzip"
	_ "embed" // of the pages
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed site/paths.txt.gz
var embeddedPaths []byte

// revisionHeader says which revision of a page a response is.
const revisionHeader = "Demo-Revision"

// A site is the origin's content: pages under paths, each in a revision that only
// change raises.
type site struct {
	paths  []string          // as a viewer asks for them, in byte order of path
	files  map[string]string // by path, for a site that is a directory
	titles bool              // pages are made up

	mu        sync.RWMutex
	revisions map[string]int
	hold      map[string]<-chan struct{} // pages whose rendering waits
	held      chan string                // says which rendering has begun to wait
}

// EmbeddedPaths returns the paths of the site that comes with the program, in
// byte order. site/README.md says where they are from.
func EmbeddedPaths() ([]string, error) {
	z, err := gzip.NewReader(bytes.NewReader(embeddedPaths))
	if err != nil {
		return nil, fmt.Errorf("demo: the embedded site: %w", err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(z); err != nil {
		return nil, fmt.Errorf("demo: the embedded site: %w", err)
	}
	return strings.Fields(b.String()), nil
}

// directorySite serves the regular files below dir, and index.html also as its
// directory. Files and directories whose names begin with a dot are left out.
func directorySite(dir string) (*site, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("demo: reading the site: %w", err)
	}
	var paths []string
	files := map[string]string{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(e.Name(), "."):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !e.Type().IsRegular():
			return nil
		}
		for _, p := range []string{"/" + name, "/" + strings.TrimSuffix(name, "index.html")} {
			p = (&url.URL{Path: p}).EscapedPath()
			if files[p] == "" && (p != "/" || name == "index.html") {
				files[p] = name
				paths = append(paths, p)
			}
			if path.Base(name) != "index.html" {
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("demo: reading the site: %w", err)
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("demo: there are no files in %s: give the directory of a built site", dir)
	}
	s := newSite(paths, files)
	for p, name := range files {
		files[p] = path.Join(dir, name)
	}
	return s, nil
}

func newSite(paths []string, files map[string]string) *site {
	return &site{
		paths: paths, files: files, titles: files == nil,
		revisions: make(map[string]int), hold: make(map[string]<-chan struct{}), held: make(chan string, 1),
	}
}

// change makes new revisions of pages.
func (s *site) change(paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range paths {
		s.revisions[p]++
	}
}

// holdNext lets the next rendering of a page wait for release after it has read
// what it will say; s.held tells when it does.
func (s *site) holdNext(p string, release <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold[p] = release
}

// A page is what the origin says under a path.
type page struct {
	revision string
	kind     string
	body     []byte
}

var errNoPage = errors.New("no such page")

// page returns what stands under a path now.
func (s *site) page(p string) (page, error) {
	s.mu.RLock()
	revision := s.revisions[p] + 1
	s.mu.RUnlock()
	pg := page{revision: strconv.Itoa(revision), kind: "text/html; charset=utf-8"}
	if s.titles {
		name := p[strings.LastIndexByte(p, '/')+1:]
		pg.body = fmt.Appendf(nil, "<!doctype html>\n<title>%s</title>\n<h1>%s</h1>\n<p>Revision %d of %s.\n", name, name, revision, p)
		return pg, nil
	}
	name, ok := s.files[p]
	if !ok {
		return page{}, errNoPage
	}
	body, err := os.ReadFile(name)
	if err != nil {
		return page{}, err
	}
	pg.body = body
	if pg.kind = mime.TypeByExtension(path.Ext(name)); pg.kind == "" {
		pg.kind = "application/octet-stream"
	}
	return pg, nil
}

// ServeHTTP implements http.Handler.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.RequestURI
	pg, err := s.page(p)
	switch {
	case errors.Is(err, errNoPage):
		http.NotFound(w, r)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	release := s.hold[p]
	delete(s.hold, p)
	s.mu.Unlock()
	if release != nil {
		s.held <- p
		select {
		case <-release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	h := w.Header()
	h.Set("Content-Type", pg.kind)
	h.Set("Cache-Control", "public, max-age=86400")
	h.Set("Cache-Tag", section(p))
	h.Set(revisionHeader, pg.revision)
	_, _ = w.Write(pg.body) // the edge that went away will ask again
}

// section is the part of the site that a page belongs to, its tag.
func section(p string) string {
	parts := strings.SplitN(strings.Trim(p, "/"), "/", 4)
	if len(parts) > 1 {
		parts = parts[:len(parts)-1]
	}
	return strings.ToLower(strings.Join(parts, "-"))
}
