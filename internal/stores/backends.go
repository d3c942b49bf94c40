// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package stores

import (
	"log/slog"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
)

func openFile(dir string, log *slog.Logger) (store.Store, error) {
	return filestore.Open(dir, &filestore.Options{Logger: log})
}

func openRedis(address string) (store.Store, error) {
	st, err := redisstore.Open(address, nil)
	if err != nil {
		return nil, &Error{Redact(address), strings.TrimPrefix(err.Error(), "redisstore: "), "write redis://USER@HOST:PORT/DB?password_file=FILE"}
	}
	return st, nil
}
