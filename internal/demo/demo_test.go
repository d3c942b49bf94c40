// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEmbedded(t *testing.T) {
	var out bytes.Buffer
	d, err := Start(t.Context(), Options{Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.Run(context.Background())
	t.Logf("%+v\n%s", res, out.String())
	if err != nil {
		t.Error(err)
	}
	dir := d.dir
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it left %s behind: %v", dir, err)
	}
}
