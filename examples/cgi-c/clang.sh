#!/bin/sh
# Finds a clang that compiles C for WASI, fetching Debian's into FOLDER where there is none, and prints its command line.
# Usage: $(examples/cgi-c/clang.sh FOLDER) -O2 hello.c -o hello.wasm
#
# WASI_CLANG names another (a wasi-sdk's, say). Nothing is installed: packages are unpacked in FOLDER, so root is not needed.
set -eu

folder=$1
say() { echo "cgi-c: $*" >&2; }

works() { # works COMMAND…
    dir=$(mktemp -d)
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$dir/x.c"
    "$@" "$dir/x.c" -o "$dir/x.wasm" >"$dir/log" 2>&1 && found=0 || found=1
    rm -rf "$dir"
    return $found
}

if [ -n "${WASI_CLANG:-}" ]; then echo "$WASI_CLANG"; exit 0; fi
if works clang --target=wasm32-wasi; then echo "clang --target=wasm32-wasi"; exit 0; fi

fetched() { # fetched COMMAND…: with the fetched libraries
    for bin in "$folder"/usr/bin/clang-[0-9]*; do
        [ -x "$bin" ] || continue
        set -- env "LD_LIBRARY_PATH=$folder/usr/lib/$(uname -m)-linux-gnu:$(echo "$folder"/usr/lib/llvm-*/lib)" \
            "$bin" --target=wasm32-wasi "--sysroot=$folder/usr"
        works "$@" && echo "$@" && return 0
    done
    return 1
}

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if fetched; then exit 0; fi
if ! command -v apt-get >/dev/null 2>&1; then
    say "there is no clang with WASI's C library: install clang, lld, wasi-libc and clang's runtime for wasm32, or a wasi-sdk"
    say "and name its clang in WASI_CLANG"
    exit 1
fi
packages="clang lld wasi-libc libclang-rt-dev-wasm32"
list() { apt-get -s install --no-install-recommends $packages | sed -n 's/^Inst \([^ ]*\) .*/\1/p'; }
if ! wanted=$(list 2>/dev/null); then
    [ "$(id -u)" = 0 ] && apt-get update -qq >&2
    wanted=$(list)
fi
say "fetching $packages from Debian, and what they need, into $folder"
(
    cd "$folder"
    # apt's own user may not be able to write here, which it says at length.
    apt-get download -qq $wanted 2>fetch.log >&2 || { cat fetch.log >&2; exit 1; }
    for package in *.deb; do dpkg-deb -x "$package" .; done
    rm -f ./*.deb fetch.log
)
fetched || { say "Debian's clang does not compile for WASI here"; exit 1; }
