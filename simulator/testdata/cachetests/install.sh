#!/usr/bin/env bash
# Copyright The cftrack Authors
# SPDX-License-Identifier: Apache-2.0
#
# Puts the HTTP cache test suite (https://github.com/http-tests/cache-tests) into the
# user's cache directory, or the directory given, and prints where it is. Needs npm.
#
#   CFTRACK_CACHE_TESTS=$(simulator/testdata/cachetests/install.sh) go test -run TestHTTPCacheSuite ./simulator
set -euo pipefail

version=0.4.5
root=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cftrack-test}/http-cache-tests-$version
suite=$root/node_modules/http-cache-tests
if [ ! -e "$root/complete" ]; then
    command -v npm >/dev/null || { echo "install.sh: npm is missing" >&2; exit 1; }
    rm -rf "$root"
    mkdir -p "$root"
    npm install --prefix "$root" --silent --ignore-scripts --no-audit --no-fund "http-cache-tests@$version" >&2
    touch "$root/complete"
fi
echo "$suite"
