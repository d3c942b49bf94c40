// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// viewers is how many ask at a time.
const viewers = 16

// A copyAt is the copy of a page at an edge.
type copyAt struct {
	path string
	edge int
}

// A response is what a viewer got.
type response struct {
	status   int
	revision string
	cache    string // X-Cache
	body     []byte
}

// fetch asks an edge as a viewer does.
func (d *Demo) fetch(ctx context.Context, c copyAt) (response, error) {
	_, edges := d.sim.URLs()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, edges[c.edge]+c.path, nil)
	if err != nil {
		return response{}, err
	}
	resp, err := d.viewers.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return response{}, err
	}
	return response{resp.StatusCode, resp.Header.Get(revisionHeader), resp.Header.Get("X-Cache"), body}, nil
}

// fresh reports whether a viewer got what the origin says now.
func (d *Demo) fresh(path string, got response) (bool, error) {
	want, err := d.site.page(path)
	if err != nil {
		return false, err
	}
	return got.status == http.StatusOK && got.revision == want.revision && bytes.Equal(got.body, want.body), nil
}

// view has viewers ask for copies, and gives each answer to check, one at a time.
// The first error ends it. what names it in the progress; "" shows none.
func (d *Demo) view(ctx context.Context, what string, todo []copyAt, check func(copyAt, response) error) error {
	type answer struct {
		copyAt
		response
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	next, answers := make(chan copyAt), make(chan answer, viewers)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	asking.Go(func() {
		defer close(next)
		for _, c := range todo {
			select {
			case next <- c:
			case <-ctx.Done():
				return
			}
		}
	})
	for range viewers {
		asking.Go(func() {
			for c := range next {
				got, err := d.fetch(ctx, c)
				select {
				case answers <- answer{c, got, err}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	bar := d.progress(what, len(todo))
	defer bar.End()
	for i := range todo {
		var a answer
		select {
		case a = <-answers:
		case <-ctx.Done():
			return ctx.Err()
		}
		if a.err == nil {
			a.err = check(a.copyAt, a.response)
		}
		if errors.Is(a.err, context.Canceled) {
			return a.err
		}
		if a.err != nil {
			return fmt.Errorf("demo: %s at edge %d: %w", a.path, a.edge, a.err)
		}
		bar.Set(i + 1)
	}
	return nil
}
