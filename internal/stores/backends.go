// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package stores

import (
	"log/slog"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
)

func openFile(dir string, log *slog.Logger) (store.Store, error) {
	return filestore.Open(dir, &filestore.Options{Logger: log})
}

func openRedis(address string, _ *slog.Logger) (store.Store, error) {
	return nil, &Error{Redact(address), "this build has no Redis store", kinds}
}
