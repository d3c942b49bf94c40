// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// DefaultTwins are templates of what is fetched beside a page: the page under its
// other names, and the data that frameworks load when somebody navigates to it. The page is in braces,
// without a slash at its end; what follows a colon stands for the root.
//
//   - static hosting: "/blog", "/blog/", "/blog/index.html", "/blog.html"
//   - Next.js, pages router: /_next/data/BUILD/blog.json, index.json for the root
//     (https://github.com/vercel/next.js/blob/canary/packages/next/src/client/page-loader.ts)
//   - Next.js, app router: the page with _rsc in its query; exported, blog.txt or
//     blog/index.txt (https://github.com/vercel/next.js/blob/canary/packages/next/src/client/components/router-reducer/fetch-server-response.ts)
//   - Gatsby: /page-data/blog/page-data.json
//     (https://github.com/gatsbyjs/gatsby/blob/master/packages/gatsby-core-utils/src/page-data.ts)
//   - Nuxt: /blog/_payload.json
//     (https://github.com/nuxt/nuxt/blob/main/packages/nuxt/src/app/composables/payload.ts)
//   - SvelteKit: /blog/__data.json, /blog.html__data.json
//     (https://github.com/sveltejs/kit/blob/main/packages/kit/src/runtime/pathname.js)
//   - React Router and Remix: /blog.data, _root.data for the root, /blog/_.data
//     (https://github.com/remix-run/react-router/blob/main/packages/react-router/lib/dom/ssr/single-fetch.tsx)
func DefaultTwins() []string {
	return []string{
		"{page}", "{page}/", "{page}/index.html", "{page}.html",
		"/_next/data/*/{page:index}.json", "{page}?_rsc=*", "{page:index}.txt", "{page}/index.txt",
		"/page-data/{page:index}/page-data.json",
		"{page}/_payload.json",
		"{page}/__data.json", "{page}.html__data.json",
		"{page:_root}.data", "{page}/_.data",
	}
}

// A twin is a template, taken apart.
type twin struct {
	head, tail, query string
	root              string // in place of the root page, with '/'; empty: nothing
}

// parseTwin reads a template.
func parseTwin(s string) (twin, error) {
	wrong := func(pos int, reason string) (twin, error) {
		return twin{}, &Error{Where: "twins", Input: s, Pos: pos, Reason: reason, Hint: `write "{page}/index.html", or "/data/{page:index}.json", where index stands for the root`}
	}
	open := strings.Index(s, "{page")
	if open < 0 {
		return wrong(0, "it has no {page}")
	}
	inside, tail, closed := strings.Cut(s[open+len("{page"):], "}")
	root, named := strings.CutPrefix(inside, ":")
	switch {
	case !closed:
		return wrong(open, "the brace is not closed")
	case inside != "" && !named, named && (root == "" || strings.ContainsAny(root, "/?*{")):
		return wrong(open, "it has no {page}, or {page:ROOT} with a name for the root")
	case strings.Contains(tail, "{page"):
		return wrong(len(s)-len(tail)+strings.Index(tail, "{page"), "there is one page to a template")
	}
	t := twin{head: s[:open], tail: tail}
	if t.head != "" && t.head[0] != '/' {
		return wrong(0, "a template begins with '/' or with the page")
	}
	t.head = strings.TrimSuffix(t.head, "/") // the page begins with one
	if named {
		t.root = "/" + root
	}
	t.tail, t.query, _ = strings.Cut(t.tail, "?")
	// All of it has to be what a path can be.
	whole := t.head + "/x" + t.tail
	if p, err := cfpath.Canonical(whole); err != nil || p != whole || strings.ContainsAny(t.head, "?") {
		return wrong(0, "it has a character that stands in no path")
	}
	return t, nil
}

// of returns the pattern of a page's twin, or false: "" is the root.
func (t *twin) of(page, query string) (string, bool) {
	switch {
	case page != "":
	case t.root != "":
		page = t.root
	case t.tail == "" && t.head == "":
		page = "/"
	case !strings.HasPrefix(t.tail, "/") && t.tail != "":
		return "", false // ".html" is no twin of the root
	}
	p := t.head + page + t.tail
	switch {
	case t.query != "" && query != "":
		return p + "?" + query + "&" + t.query, true
	case t.query != "":
		return p + "?" + t.query, true
	case query != "":
		return p + "?" + query, true
	}
	return p, true
}

// page returns the page whose twin a path is, if it is.
func (t *twin) page(stem string) (string, bool) {
	if strings.Contains(t.head+t.tail, "*") || t.query != "" || t.head+t.tail == "" ||
		len(stem) < len(t.head)+len(t.tail) || !strings.HasPrefix(stem, t.head) || !strings.HasSuffix(stem, t.tail) {
		return "", false
	}
	page := stem[len(t.head) : len(stem)-len(t.tail)]
	if t.root != "" && page == t.root {
		page = ""
	}
	return page, page == "" || page[0] == '/' && page[len(page)-1] != '/'
}

// addTwins adds to a set the twins of what a canonical pattern means.
func addTwins(set *patterns, twins []twin, pattern string) {
	stem, query, _ := strings.Cut(pattern, "?")
	// It is the page that it says most about: "/a/index.html" is "/a", not "/a/index".
	page, most := strings.TrimSuffix(stem, "/"), 0
	for i := range twins {
		if p, ok := twins[i].page(stem); ok && len(stem)-len(p) > most {
			page, most = p, len(stem)-len(p)
		}
	}
	own := newPatterns(set.exactQuery)
	own.add(pattern)
	own.finish()
	for i := range twins {
		// What the pattern matches itself needs no second one.
		if p, ok := twins[i].of(page, query); ok && !own.match(p) {
			set.add(p)
		}
	}
}

// parseTwins reads templates.
func parseTwins(given []string) ([]twin, error) {
	out := make([]twin, 0, len(given))
	for i, s := range given {
		t, err := parseTwin(s)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); ok {
				e.Where = fmt.Sprintf("twins[%d]", i)
			}
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// CheckTwin tells what is wrong with a template; nil if nothing is.
func CheckTwin(template string) error {
	_, err := parseTwin(template)
	return err
}
