#!/bin/sh
# Makes `cargo build --target wasm32-wasip2` work on this machine, and prints the environment that a build of a guest
# needs (empty where rustup has the target). Usage: eval "$(guest-sdk/wasm-target.sh)", or with another target: wasm32-wasip1
#
# Three ways, tried in order: the target is there; rustup can fetch it; Debian's packages hold all the parts
# (rustc with its linker, the standard library's sources, wasi-libc), from which the library is built once.
set -eu

target=${1:-wasm32-wasip2}
say() { echo "wasm-target: $*" >&2; }

has_target() { # has_target RUSTC
    lib=$("$1" --print sysroot 2>/dev/null)/lib/rustlib/$target/lib
    ls "$lib"/libstd-*.rlib >/dev/null 2>&1
}

if has_target "${RUSTC:-rustc}"; then
    [ -z "${RUSTC:-}" ] || echo "export RUSTC=$RUSTC"
    exit 0
fi
if command -v rustup >/dev/null 2>&1; then
    say "asking rustup for $target"
    if timeout 300 rustup target add $target >&2 && has_target rustc; then exit 0; fi
    say "rustup could not fetch $target; trying Debian's packages"
fi

debian=/usr/bin/rustc
packages="rustc-web cargo-web rust-web-src rust-web-llvm lld-22 wasi-libc"
if ! { [ -x $debian ] && has_target $debian; }; then
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        say "no $target: run 'rustup target add $target' where rustup can download,"
        say "or, on Debian, as root: apt-get install $packages, and this script again"
        exit 1
    fi
    if ! dpkg -s $packages >/dev/null 2>&1; then
        say "installing $packages"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages; } >&2
    fi
    say "building the standard library for $target (once, about a minute)"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/src"
    printf '[package]\nname = "seed"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/Cargo.toml"
    : >"$work/src/lib.rs"
    # With bitcode, since guests are built with link-time optimisation.
    (cd "$work" && RUSTC=$debian RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes CARGO_TARGET_DIR="$work/target" \
        cargo build -q --release -Z build-std=std,panic_abort --target $target >&2)
    lib=$("$debian" --print sysroot)/lib/rustlib/$target/lib
    mkdir -p "$lib/self-contained"
    cp "$work"/target/$target/release/deps/*.rlib "$lib/"
    rm -f "$lib"/libseed-*.rlib
    libc=/usr/lib/wasm32-wasi
    cp $libc/crt1-command.o $libc/crt1-reactor.o $libc/libc.a "$lib/self-contained/"
fi
say "using Debian's rustc for $target"
echo "export RUSTC=$debian"
