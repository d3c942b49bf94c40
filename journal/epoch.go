// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// An epoch is the life of the store's data that the journal was last written in.
type epoch struct {
	Epoch string `json:"epoch"`
	// Lost is when another one was last found than had been noted.
	Lost time.Time `json:"lost,omitzero"`
}

// DataLost returns when, in store time, a dispatcher last found that the store had
// lost data: whatever was saved up to then may have been sent although the
// journal says nothing of an answer. It is zero if that never happened. DataLost
// looks at the store's epoch, which it notes in the journal; now is store time.
func (l *Lease) DataLost(ctx context.Context, now time.Time) (time.Time, error) {
	st, err := l.j.store.Status(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var e epoch
	v, err := l.j.get(ctx, keyEpoch, &e)
	if err != nil || e.Epoch == st.Epoch {
		return e.Lost, err
	}
	e.Epoch = st.Epoch
	if v != 0 {
		e.Lost = now
	}
	return e.Lost, l.commit(ctx, store.Transaction{
		Require: []store.Requirement{{Key: keyEpoch, Version: v}}, Put: []store.Put{put(keyEpoch, e)}}, nil)
}
