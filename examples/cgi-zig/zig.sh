#!/bin/sh
# Finds a Zig compiler, fetching it from PyPI into FOLDER where there is none, and prints its command.
# Usage: $(examples/cgi-zig/zig.sh FOLDER) build-exe -target wasm32-wasi hello.zig
#
# Zig's standard library changes from version to version, so the one that the example is written for is pinned, by hash.
set -eu

folder=$1
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^ziglang==\([^ ]*\).*/\1/p' "$here/requirements.txt")

is_wanted() { [ "$("$1" version 2>/dev/null)" = "$version" ]; }

for zig in "${ZIG:-zig}" "$folder/ziglang/zig"; do
    if is_wanted "$zig"; then echo "$zig"; exit 0; fi
done
echo "cgi-zig: fetching Zig $version from PyPI into $folder" >&2
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: \
    --require-hashes -r "$here/requirements.txt" --upgrade --target "$folder" >&2
is_wanted "$folder/ziglang/zig" || { echo "cgi-zig: what was fetched does not run here" >&2; exit 1; }
echo "$folder/ziglang/zig"
