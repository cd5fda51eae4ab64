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

# A host that is confined could write no notes beside its own files. Compilers have no environment: they write theirs where they were built to.
at_work() { # at_work NAME ROWS
    say "at work: $2"
    WASGI_CONFINE=off LLVM_PROFILE_FILE=$work/notes/$1-%p.profraw \
        "$programs/bench" --programs "$programs" --guests "$guests" --parts throughput --rows "$2" --rounds 1 --seconds 2 \
        --native-python "$work" --python-sdk "$work" --python-sources tests/bench/python \
        --scratch "$work/run" --report "$work/report.md" >&2
}

# What is called most often of functions whose names have this in them.
most_calls() { # most_calls PROFILE NAME
    "$profdata" show --counts --function="$2" "$1" | sed -n 's/.*Block counts: \[\([0-9]*\).*/\1/p' | sort -n | tail -n 1
}

say "building what takes notes"
rm -rf "$work/notes"
mkdir -p "$work/notes"
build "-Cprofile-generate=$work/notes" noting

# No part with apps in Python: their way through the host is that of the others.
programs=$work/noting/$triple/release
at_work small hello
at_work large page
at_work large upload
# Large bodies are a few loops with as many rounds as bytes: with the weight of the others they would be all that is worth optimising.
inputs=
for notes in "$work"/notes/*.profraw; do
    case ${notes##*/} in small-*) weight=16 ;; *) weight=1 ;; esac
    inputs="$inputs -weighted-input=$weight,$notes"
done
# shellcheck disable=SC2086
"$profdata" merge -o "$work/merged.profdata" $inputs
calls=$(most_calls "$work/merged.profdata" wasgi_host7gateway)
if [ "${calls:-0}" -lt 100000 ]; then
    say "the host's notes are missing (most calls: ${calls:-none}): a build with these would be slower than one without any"
    exit 1
fi
# Named after its content: cargo does not see that a profile has changed.
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
