;; A hunter (hunt.rs): looks for what was not there when its instance was made, says so in bits, and leaves canaries.
(component
  (import "wasi:io/streams@0.2.0" (instance $streams (export "output-stream" (type (sub resource)))))
  (alias export $streams "output-stream" (type $stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $stream (type $outer))
    (export "output-stream" (type $stream (eq $outer)))
    (export "get-stdout" (func (result (own $stream))))))
  (import "wasi:random/insecure-seed@0.2.0" (instance $insecure
    (export "insecure-seed" (func (result (tuple u64 u64))))))

  ;; A module with a memory of its own, into which the host writes.
  (core module $beside
    (memory (export "memory") 1)
    (global $seen (mut i32) (i32.const 0))
    (func (export "grow") (result i32) (memory.grow (i32.const 1)))
    (func (export "load") (param i32) (result i64) (i64.load (local.get 0)))
    (func (export "store") (param i32 i64) (i64.store (local.get 0) (local.get 1)))
    (func (export "seen") (result i32) (global.get $seen) (global.set $seen (i32.const 1))))
  (core instance $beside (instantiate $beside))
  (alias core export $beside "memory" (core memory $memory))
  (core func $get-stdout (canon lower (func $stdout "get-stdout")))
  (core func $seed (canon lower (func $insecure "insecure-seed") (memory $memory)))

  (core module $main
    (import "beside" "grow" (func $grow-beside (result i32)))
    (import "beside" "load" (func $load-beside (param i32) (result i64)))
    (import "beside" "store" (func $store-beside (param i32 i64)))
    (import "beside" "seen" (func $seen-beside (result i32)))
    (import "host" "stdout" (func $stdout (result i32)))
    (import "host" "seed" (func $get-seed (param i32)))
    (memory PAGES)
    ;; OWN DATA
    (table $table 1 funcref)
    (global $i32 (mut i32) (i32.const 0))
    (global $i64 (mut i64) (i64.const 0))
    (global $f32 (mut f32) (f32.const 0))
    (global $f64 (mut f64) (f64.const 0))
    (global $v128 (mut v128) (v128.const i64x2 0 0))
    (global $reference (mut funcref) (ref.null func))
    (func $target)
    (elem declare func $target)

    ;; What was found in this call. It lives in a global, so a call begins by forgetting it.
    (global $found (mut i32) (i32.const 0))
    (func $find (param i32) (global.set $found (i32.or (global.get $found) (local.get 0))))

    (func $is-mine (param $at i32) (result i32)
      (i32.and $IS-MINE
        (i32.and (i32.ge_u (local.get $at) (i32.const 131072)) (i32.lt_u (local.get $at) (i32.const 211072)))))

    (func $look (local $at i32) (local $word i64)
      ;; What it believes the length to be is one thing, what the host says when it grows another.
      (if (i32.ne (memory.size) (i32.const PAGES)) (then (call $find (i32.const 2))))
      (if (i32.ne (memory.grow (i32.const 3)) (i32.const PAGES)) (then (call $find (i32.const 2))))
      (loop $next
        (local.set $word (i64.load (local.get $at)))
        (if (i64.eq (local.get $word) (i64.const 0x7972616e61632121)) (then (call $find (i32.const 1))))
        ;; The data is there where it is this app's own, and nowhere else.
        (if (i32.ne (i64.eq (local.get $word) (i64.const 0x20217972616e6163)) (call $is-mine (local.get $at)))
          (then (call $find (i32.const 32))))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      (if (i32.or
            (i32.or (global.get $i32) (i64.ne (global.get $i64) (i64.const 0)))
            (i32.or
              (i32.or (f32.ne (global.get $f32) (f32.const 0)) (f64.ne (global.get $f64) (f64.const 0)))
              (i32.or (v128.any_true (global.get $v128)) (i32.eqz (ref.is_null (global.get $reference))))))
        (then (call $find (i32.const 4))))
      (if (call $seen-beside) (then (call $find (i32.const 4))))
      (if (i32.ne (call $grow-beside) (i32.const 1)) (then (call $find (i32.const 16))))
      (if (i64.ne (call $load-beside (i32.const 4096)) (i64.const 0)) (then (call $find (i32.const 8))))
      (if (i64.ne (call $load-beside (i32.const 69632)) (i64.const 0)) (then (call $find (i32.const 8))))
      ;; TABLE
      ;; HANDLES
    )

    (func $table (result i32) (i32.eqz (ref.is_null (table.get $table (i32.const 0)))))
    ;; The first handle of an instance has the number 1. It is kept.
    (func $handle (result i32) (i32.ne (call $stdout) (i32.const 1)))

    (func $leave (param $at i32)
      (loop $next
        (i64.store (local.get $at) (i64.const 0x7972616e61632121))
        (local.set $at (i32.add (local.get $at) (i32.const 8)))
        (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
      (global.set $i32 (i32.const 1))
      (global.set $i64 (i64.const 1))
      (global.set $f32 (f32.const 1))
      (global.set $f64 (f64.const 1))
      (global.set $v128 (v128.const i64x2 0 1))
      (global.set $reference (ref.func $target))
      (call $store-beside (i32.const 4096) (i64.const 0x7972616e61632121))
      (call $store-beside (i32.const 69632) (i64.const 0x7972616e61632121))
      ;; SET
    )

    ;; Leaves canaries from there on.
    (func (export "hunt") (param $from i32) (result i32)
      (global.set $found (i32.const 0))
      (call $look)
      (call $leave (local.get $from))
      (global.get $found))

    ;; What the host's context for this instance begins with.
    (func (export "seed") (result i64)
      (call $get-seed (i32.const 8192))
      (call $load-beside (i32.const 8192))))
  (core instance $main (instantiate $main
    (with "beside" (instance $beside))
    (with "host" (instance (export "stdout" (func $get-stdout)) (export "seed" (func $seed))))))

  (func (export "hunt") (param "from" u32) (result u32) (canon lift (core func $main "hunt")))
  (func (export "seed") (result u64) (canon lift (core func $main "seed"))))
