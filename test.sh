#!/usr/bin/env bash
# Copyright The cftrack Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs every test with the race detector. Needs Go and git; the last line it
# prints is `N passed, N failed, N skipped`, and it exits with 1 if something failed.
#
# The programs that some tests run beside the code (see `programs` below) are taken
# from PATH. Those that are missing are unpacked from Debian packages into the
# user's cache directory, which needs no rights, changes nothing on the system and
# starts no service. A module for Node.js, where that is, is put there with npm. A C
# compiler, which the race detector needs, is installed with apt where that is allowed
# without a password. What cannot be had is said, and the tests that need it are
# skipped; with CI=true a skipped test is a failure.
#
#   ./test.sh              everything
#   ./test.sh ./plan/...   these packages
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }
fail() {
    say "test.sh: $*"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

# --- Go ---

command -v go >/dev/null || fail "Go is missing: install it from https://go.dev/dl/ and put its bin directory on PATH."
want=$(awk '$1 == "go" { print $2 }' go.mod)
have=$(go env GOVERSION 2>/dev/null) || true
[ "$(printf '%s\n' "$want" "${have#go}" | sort -V | head -n 1)" = "$want" ] ||
    fail "Go $want or newer is needed, this is ${have:-older than 1.21}: get it from https://go.dev/dl/, or set GOTOOLCHAIN=auto to have Go fetch it."

# --- a clean environment ---

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/home"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cftrack-test

# Go's own settings that say where things come from and are kept; what would change
# how the code is built or runs is left behind.
for name in GOPATH GOMODCACHE GOCACHE GOPROXY GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOVCS GOTOOLCHAIN; do
    declare -x "$name=$(go env "$name")"
done
for name in $(compgen -e); do
    case $name in
    GOPATH | GOMODCACHE | GOCACHE | GOPROXY | GOSUMDB | GONOSUMDB | GONOPROXY | GOPRIVATE | GOINSECURE | GOVCS | GOTOOLCHAIN | GOROOT) ;;
    AWS_* | CFTRACK_* | XDG_* | GO* | CGO_* | NO_COLOR | CLICOLOR* | LC_* | LANG | LANGUAGE | TZ) unset "$name" ;;
    esac
done
export GOENV=off GOWORK=off GOFLAGS=-buildvcs=false AWS_EC2_METADATA_DISABLED=true LC_ALL=C.UTF-8

# Modules come through whatever proxies the user has, before the tests lose sight of them.
say "modules: looking"
go list -deps -test ./... >/dev/null ||
    fail "the modules in go.mod are not all here and could not be had: see above, and check GOPROXY (now $GOPROXY) and the network."

# --- programs ---

# unpack PROGRAM PACKAGE: puts a wrapper of the program into $cache/bin. Packages come
# with what they depend on and the system lacks; lists and archives are apt's own, kept
# apart from the system's.
unpack() {
    local program=$1 package=$2 root=$cache/$2 apt found library
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial" "$cache/bin"
    apt=(apt-get -qq -o "Dir::State::lists=$cache/apt/lists" -o "Dir::Cache=$cache/apt"
        -o Debug::NoLocking=true -o APT::Sandbox::User= -o Acquire::Retries=2 -o Acquire::http::Timeout=20)
    if [ -z "${listed:-}" ]; then
        "${apt[@]}" update || return 1
        listed=yes
    fi
    rm -rf "$root" "$cache"/apt/archives/*.deb
    "${apt[@]}" install -y --no-install-recommends --download-only "$package" || return 1
    mkdir -p "$root"
    for deb in "$cache"/apt/archives/*.deb; do
        dpkg-deb -x "$deb" "$root" || return 1
    done
    rm -f "$cache"/apt/archives/*.deb
    found=$(find "$root/usr/bin" "$root/usr/sbin" -name "$program" 2>/dev/null | head -n 1)
    [ -n "$found" ] || return 1
    library=$(find "$root/usr/lib" "$root/lib" -maxdepth 1 -type d -name '*-linux-gnu*' 2>/dev/null | paste -sd :)
    {
        echo '#!/bin/sh'
        echo "export LD_LIBRARY_PATH='$library'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
        # Apache looks for its modules where its configuration says that it is installed.
        [ "$program" != apache2 ] || echo "for f; do case \$f in */config) sed -i 's#^ServerRoot .*#ServerRoot $root/usr/lib/apache2#' \"\$f\" ;; esac; done"
        if [ "$(head -c 2 "$found")" = '#!' ]; then # the AWS CLI
            echo "export PYTHONPATH='$root/usr/lib/python3/dist-packages'"
            if [ -x /usr/bin/python3 ]; then
                echo "exec /usr/bin/python3 '$found' \"\$@\""
            else
                echo "PYTHONHOME='$root/usr' exec '$root/usr/bin/python3' '$found' \"\$@\""
            fi
        else
            echo "exec '$found' \"\$@\""
        fi
    } >"$cache/bin/$program.new"
    chmod +x "$cache/bin/$program.new"
    mv "$cache/bin/$program.new" "$cache/bin/$program"
}

# A program of the tests, and the Debian package that has it.
programs='redis-server redis-server
redis-cli redis-tools
aws awscli
nginx nginx
apache2 apache2-bin
caddy caddy'

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:$cache/bin
missing=
while read -r program package; do
    command -v "$program" >/dev/null && continue
    if command -v apt-get >/dev/null && [ "$(command -v dpkg-deb)" ]; then
        say "$program: unpacking the package $package"
        if unpack "$program" "$package" >"$scratch/apt.log" 2>&1; then
            continue
        fi
        tail -n 3 "$scratch/apt.log" >&2
    fi
    missing="$missing $program"
done <<<"$programs"
[ -z "$missing" ] || say "missing, so tests that need them are skipped:$missing (install them, or make apt-get able to download them)"

# What some tests need of npm, for which a registry out of reach must not be waited for.
suite=
modules=
if command -v node >/dev/null && command -v npm >/dev/null; then
    export npm_config_fetch_retries=1 npm_config_fetch_timeout=20000
    sdk=@aws-sdk/client-cloudfront@3.1164.0
    modules=$cache/node-${sdk##*@}
    patience=60
    [ -d "$modules" ] || timeout 20 npm view "$sdk" version >"$scratch/npm.log" 2>&1 </dev/null || patience=1
    # A public test suite for HTTP caches.
    suite=$(timeout "$patience" simulator/testdata/cachetests/install.sh "$cache" 2>"$scratch/npm.log" </dev/null) || suite=
    [ -z "$suite" ] || export CFTRACK_CACHE_TESTS=$suite
    # AWS's SDK for JavaScript, which talks to the simulator.
    if [ ! -d "$modules" ]; then
        say "$sdk: installing it for Node.js"
        if timeout "$patience" npm install --prefix "$scratch/node" --no-save --ignore-scripts --no-audit --no-fund --loglevel=error "$sdk" >"$scratch/npm.log" 2>&1 </dev/null; then
            mkdir -p "$cache"
            rm -rf "$modules.new"
            cp -R "$scratch/node" "$modules.new" && mv "$modules.new" "$modules"
        else
            modules=
            tail -n 3 "$scratch/npm.log" >&2
        fi
    fi
    [ -z "$modules" ] || export NODE_PATH=${NODE_PATH:+$NODE_PATH:}$modules/node_modules
fi

race=-race
export CGO_ENABLED=1
compiler=$(go env CC)
compiles() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | $compiler -x c -o "$scratch/a.out" - 2>/dev/null; }
if ! compiles; then
    as_root=
    if [ "$(id -u)" = 0 ]; then as_root=env; elif sudo -n true 2>/dev/null; then as_root="sudo -n"; fi
    if [ -n "$as_root" ] && command -v apt-get >/dev/null; then
        say "C compiler: installing gcc"
        { $as_root apt-get -qq update && $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends gcc libc6-dev; } \
            >"$scratch/apt.log" 2>&1 </dev/null || tail -n 3 "$scratch/apt.log" >&2
        compiler=gcc
    fi
    if compiles; then
        export CC=$compiler
    else
        say "missing: a C compiler, so the tests run without the race detector (install gcc and libc6-dev)"
        race=
        export CGO_ENABLED=0
    fi
fi

# --- tests ---

unset HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
export HOME=$scratch/home GOPROXY=off

packages=("$@")
[ ${#packages[@]} -gt 0 ] || packages=(./...)
flags=()
[ "${CI:-}" != true ] || flags+=(-skips-fail)
[ -n "$race" ] || [ "${CI:-}" != true ] || flags+=(-failed "race detector")

# Real inputs are not part of the project. A test that needs them and does not have
# them is left out, and not counted as anything.
left=
if [ ! -e ../shared/data/apache-combined-10k.log.gz ]; then
    say "no real log in ../shared/data: TestRealLog is left out"
    left="$left|TestRealLog"
fi
# Nor is the right to mount a disk that can be filled.
if ! { mkdir "$scratch/disk" && mount -t tmpfs -o size=1m cftrack "$scratch/disk" && umount "$scratch/disk"; } 2>/dev/null; then
    say "no right to mount a file system: TestFullDisk is left out"
    left="$left|TestFullDisk"
fi
if [ -z "$suite" ]; then
    say "no node, or no http-cache-tests from npm: TestHTTPCacheSuite is left out"
    left="$left|TestHTTPCacheSuite"
fi
if [ -z "$modules" ]; then
    say "no node, or no AWS SDK from npm: TestJavaScriptSDK is left out"
    left="$left|TestJavaScriptSDK"
fi
skip=()
[ -z "$left" ] || skip=(-skip "^(${left#|})\$")

go build -o "$scratch/testsummary" ./internal/testsummary || fail "internal/testsummary does not build: see above."
# shellcheck disable=SC2086 # race is one flag or none
go vet $race "${packages[@]}" >&2 </dev/null || flags+=(-failed "go vet")
# shellcheck disable=SC2086
{ go test $race -json -count=1 -timeout 13m ${skip[@]+"${skip[@]}"} "${packages[@]}" </dev/null || true; } 2>&1 | "$scratch/testsummary" "${flags[@]}"
