#!/bin/sh
# Profile-guided optimisation: builds the host and what is measured beside it, lets them work, and builds them again with what they did.
# Prints where the programs are. Usage: tests/bench/pgo.sh GUESTS, in the repository's root; `make release-pgo` does it.
#
# Twice a release build, and a minute of load (wrk). The compiler's version has to be the profile's: llvm-profdata is rustup's.
set -eu

guests=$1
cargo=${CARGO:-cargo}
work=$(pwd)/target/pgo
# With a target named, cargo keeps RUSTFLAGS from build scripts and macros.
triple=$(rustc -vV | sed -n 's/^host: //p')
say() { echo "pgo: $*" >&2; }

profdata=$(rustc --print sysroot)/lib/rustlib/$triple/bin/llvm-profdata
if ! [ -x "$profdata" ]; then
    say "asking rustup for llvm-tools"
    if ! { command -v rustup >/dev/null && rustup component add llvm-tools >&2 && [ -x "$profdata" ]; }; then
        say "llvm-profdata of this compiler is missing: install Rust by rustup, then 'rustup component add llvm-tools'"
        exit 1
    fi
fi

build() { # build FLAGS DIRECTORY
    RUSTFLAGS=$1 CARGO_TARGET_DIR=$work/$2 "$cargo" build --locked --release --target "$triple" -p wasgi-host -p bench >&2
}

say "building what takes notes"
rm -rf "$work/notes"
mkdir -p "$work/notes"
build "-Cprofile-generate=$work/notes" noting

say "at work"
# No part with apps in Python: their way through the host is that of the others.
programs=$work/noting/$triple/release
"$programs/bench" --programs "$programs" --guests "$guests" --parts throughput --rounds 1 --seconds 2 \
    --native-python "$work" --python-sdk "$work" --python-sources tests/bench/python \
    --scratch "$work/run" --report "$work/report.md" >&2
# Named after its content: cargo does not see that a profile has changed.
"$profdata" merge -o "$work/merged.profdata" "$work"/notes/*.profraw
profile=$work/$(sha256sum "$work/merged.profdata" | cut -c1-16).profdata
mv "$work/merged.profdata" "$profile"

say "building with these notes"
build "-Cprofile-use=$profile" optimised
# What is older than it is of no use any more.
find "$work" -maxdepth 1 -name '*.profdata' ! -path "$profile" -delete

mkdir -p "$work/release"
for program in wasgi bench yardstick micro; do
    cp "$work/optimised/$triple/release/$program" "$work/release/.$program" && mv "$work/release/.$program" "$work/release/$program"
done
say "done: $work/release/wasgi"
