// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"net/http"
	"sync"
)

// stream is a body that is read by many while it comes in.
type stream struct {
	mu   sync.Mutex
	data []byte
	done bool
	err  error
	more chan struct{} // closed and replaced when there is more; nil while nobody waits
}

func newStream() *stream { return &stream{} }

func (b *stream) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	b.wake()
	return len(p), nil
}

func (b *stream) finish(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.err = true, err
	b.wake()
}

func (b *stream) wake() {
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
}

func (b *stream) len() int { return len(b.bytes()) }

// bytes returns what has come in so far. Nobody changes it: more is only appended.
func (b *stream) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data[:len(b.data):len(b.data)]
}

// whole waits until the body is complete, and returns it.
func (b *stream) whole(viewer context.Context) ([]byte, error) {
	for {
		b.mu.Lock()
		data, done, err := b.data, b.done, b.err
		if !done && b.more == nil {
			b.more = make(chan struct{})
		}
		more := b.more
		b.mu.Unlock()
		if done {
			return data[:len(data):len(data)], err
		}
		select {
		case <-more:
		case <-viewer.Done():
			return nil, viewer.Err()
		}
	}
}

// copyTo writes the body until it is complete; it is at the latest when the simulator ends, since that
// ends what brings it. An error of the writer is the viewer's, and not returned.
func (b *stream) copyTo(viewer context.Context, w http.ResponseWriter) error {
	for off := 0; ; {
		b.mu.Lock()
		data, done, err := b.data[off:], b.done, b.err
		if len(data) == 0 && !done && b.more == nil {
			b.more = make(chan struct{})
		}
		more := b.more
		b.mu.Unlock()
		if len(data) > 0 {
			if _, err := w.Write(data); err != nil {
				return nil
			}
			off += len(data)
			if done {
				continue
			}
			_ = http.NewResponseController(w).Flush() // a writer that cannot flush sends at the end
			continue
		}
		if done {
			return err
		}
		select {
		case <-more:
		case <-viewer.Done():
			return nil
		}
	}
}
