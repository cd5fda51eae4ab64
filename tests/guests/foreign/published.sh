#!/bin/sh
# Builds an example of a package on crates.io, as its authors have published it, with the dependencies of its own lock file:
# `published.sh CARGO PACKAGE EXAMPLE TARGET_DIRECTORY OUTPUT [ARGUMENTS]`. rust/Cargo.lock says which bytes the package has.
set -eu
cargo=$1 package=$2 example=$3 target=$4 output=$5
shift 5
cd "$(dirname "$0")"
manifest=$("$cargo" metadata --locked --manifest-path rust/Cargo.toml --filter-platform wasm32-wasip2 --format-version 1 |
	python3 -c '
import json, sys
packages = json.load(sys.stdin)["packages"]
print(next(package["manifest_path"] for package in packages if package["name"] == sys.argv[1]))' "$package")
source=$target/source-$package
rm -rf "$source"
mkdir -p "$target"
cp -R "$(dirname "$manifest")" "$source"
# Which toolchain builds it is decided here; and it belongs to no workspace of this repository.
rm -f "$source/rust-toolchain.toml"
printf '\n[workspace]\n' >>"$source/Cargo.toml"
env=$(../../../guest-sdk/wasm-target.sh)
eval "$env"
CARGO_TARGET_DIR=$target "$cargo" build --locked --release --target wasm32-wasip2 \
	--manifest-path "$source/Cargo.toml" --example "$example" "$@"
cp "$target/wasm32-wasip2/release/examples/$(echo "$example" | tr - _).wasm" "$output"
