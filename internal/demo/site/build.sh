#!/usr/bin/env bash
# Copyright The cftrack Authors
# SPDX-License-Identifier: Apache-2.0
#
# Rebuilds paths.txt.gz, the pages of the demo's site: every path of developer.mozilla.org that
# @mdn/browser-compat-data (CC0-1.0) names in an mdn_url, sorted by byte, each once.
# Needs npm, node and tar. To take another version, change it here and in README.md.
set -euo pipefail

version=8.1.9
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

(cd "$scratch" && npm pack --silent "@mdn/browser-compat-data@$version" >/dev/null)
tar -xzf "$scratch"/mdn-browser-compat-data-"$version".tgz -C "$scratch"

node -e '
  const host = "https://developer.mozilla.org";
  const paths = new Set();
  (function walk(value) {
    if (value === null || typeof value !== "object") return;
    const url = value.mdn_url;
    // A fragment is a place on the same page, and never sent to a server.
    if (typeof url === "string" && url.startsWith(host + "/")) paths.add(url.slice(host.length).split("#")[0]);
    Object.values(value).forEach(walk);
  })(require(process.argv[1]));
  process.stdout.write([...paths].map((path) => path + "\n").join(""));
' "$scratch/package/data.json" | LC_ALL=C sort -u | gzip -9n >"$here/paths.txt.gz"
cp "$scratch/package/LICENSE" "$here/LICENSE"

printf '%s pages of @mdn/browser-compat-data %s\n' "$(gzip -dc "$here/paths.txt.gz" | wc -l)" "$version"
