#!/bin/sh
# Puts the WIT of wasi:http 0.2 into a folder, for tools that do not bring it along: `wit.sh CARGO OUTPUT`.
#
# It is the one that the host's own wasmtime-wasi-http is built with, as version 0.2.10: componentize-js 0.23 refuses what
# 0.2.12 has in addition.
set -eu
cargo=$1 output=$2
cd "$(dirname "$0")/../../.."
# What other platforms need is not fetched.
host=$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')
manifest=$("$cargo" metadata --locked --format-version 1 --filter-platform "$host" | python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(next(package["manifest_path"] for package in packages if package["name"] == "wasmtime-wasi-http"))')
rm -rf "$output.new"
mkdir -p "$(dirname "$output")"
cp -R "$(dirname "$manifest")/wit" "$output.new"
for file in "$output.new"/*.wit "$output.new"/deps/*.wit; do
	sed 's/0\.2\.12/0.2.10/g' "$file" >"$file.new"
	mv "$file.new" "$file"
done
rm -rf "$output"
mv "$output.new" "$output"
