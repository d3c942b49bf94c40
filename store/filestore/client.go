// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// answerTimeout is how long an owner may take to begin its answer. One that is
// there but takes longer has been stopped, or its disk has.
const answerTimeout = 30 * time.Second

// A client is the database as another process serves it. Nothing is dialled
// before the first call.
type client struct {
	sock *socket
	http http.Client
}

func newClient(sock *socket) *client {
	c := &client{sock: sock}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock.name)
		},
		ResponseHeaderTimeout: answerTimeout,
		MaxIdleConnsPerHost:   16,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
	}
	return c
}

func (c *client) close() error {
	c.http.CloseIdleConnections()
	return c.sock.close()
}

// post makes a call. The caller closes the answer's body.
func (c *client) post(ctx context.Context, name string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://owner/"+protocol+"/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, lost(ctx, err)
	}
	if p := resp.Header.Get(protocolHeader); p != protocol {
		err = fmt.Errorf("%w: the process that has the directory speaks protocol %q, this one %q: run the same version of cftrack everywhere",
			store.ErrUnavailable, p, protocol)
	} else if resp.StatusCode != http.StatusOK {
		var text []byte
		if text, err = io.ReadAll(io.LimitReader(resp.Body, 4<<10)); err == nil {
			err = errorOf(resp.StatusCode, strings.TrimSpace(string(text)))
		} else {
			err = lost(ctx, err)
		}
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// lost is what an error of the connection means: usually that the owner ended.
func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%w: the process that has the directory does not answer: %w", store.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", errMoved, err)
}

// ask makes a call in gob.
func (c *client) ask(ctx context.Context, name string, call, answer any) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(call); err != nil {
		return err
	}
	resp, err := c.post(ctx, name, body.Bytes())
	if err != nil {
		return err
	}
	if err = gob.NewDecoder(resp.Body).Decode(answer); err != nil {
		err = lost(ctx, err)
	}
	return errors.Join(err, resp.Body.Close())
}

// sendChunk is how many updates or conditions go in one request.
const sendChunk = 4 * mergeChunk

func (c *client) merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	for first := true; first || len(updates) > 0; first = false {
		n := min(len(updates), sendChunk)
		resp, err := c.post(ctx, "merge", appendUpdates(make([]byte, 0, 128*n), distribution, updates[:n]))
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return lost(ctx, err)
		}
		updates = updates[n:]
	}
	return nil
}

func (c *client) scan(ctx context.Context, distribution string, r store.Range, yield func(inventory.Entry) bool) (next string, _ error) {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(scanCall{distribution, r}); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // tells the owner to stop when the caller had enough
	resp, err := c.post(ctx, "scan", body.Bytes())
	if err != nil {
		return "", err
	}
	entries := entryReader{r: bufio.NewReaderSize(resp.Body, 64<<10)}
	last, some := "", false
	err = func() error {
		for i := 0; ; i++ {
			e, err := entries.next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return lost(ctx, err)
			}
			if i%64 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			last, some = e.Path, true
			if !yield(e) {
				return nil
			}
		}
	}()
	if some {
		next = last + "\x00" // the first path beyond it
	}
	return next, errors.Join(err, resp.Body.Close())
}

func (c *client) clear(ctx context.Context, distribution string, conditions []store.Condition) (n int, _ error) {
	for first := true; first || len(conditions) > 0; first = false {
		var answer countAnswer
		chunk := conditions[:min(len(conditions), sendChunk)]
		if err := c.ask(ctx, "clear", clearCall{distribution, chunk}, &answer); err != nil {
			return n, err
		}
		n += answer.N
		conditions = conditions[len(chunk):]
	}
	return n, nil
}

func (c *client) sweep(ctx context.Context, distribution string, now time.Time) (int, error) {
	var answer countAnswer
	err := c.ask(ctx, "sweep", sweepCall{distribution, now}, &answer)
	return answer.N, err
}

func (c *client) list(ctx context.Context, distribution, prefix, after string, limit int) ([]store.Document, error) {
	var answer listAnswer
	err := c.ask(ctx, "list", listCall{distribution, prefix, after, limit}, &answer)
	return answer.Documents, err
}

func (c *client) commit(ctx context.Context, distribution string, t store.Transaction, id transactionID) (version uint64, _ error) {
	err := c.ask(ctx, "commit", commitCall{distribution, t, id}, &version)
	return version, err
}

func (c *client) info(ctx context.Context) (epoch string, readOnly, _ error) {
	var answer infoAnswer
	err := c.ask(ctx, "info", struct{ Unused bool }{}, &answer)
	if answer.ReadOnly != "" {
		readOnly = errors.New(answer.ReadOnly)
	}
	return answer.Epoch, readOnly, err
}
