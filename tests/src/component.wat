;; The contract's world by hand, around a core module whose attack is put in place of "CORE".
(component
  ;; A module with a memory of its own, for attacks that take two.
  (core module $beside
    (memory 0)
    (global $seen (mut i32) (i32.const 0))
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
    (func (export "load") (param i32) (result i64) (i64.load (local.get 0)))
    (func (export "store") (param i32 i64) (i64.store (local.get 0) (local.get 1)))
    (func (export "seen") (result i32) (global.get $seen))
    (func (export "see") (param i32) (global.set $seen (local.get 0))))
  (core instance $beside (instantiate $beside))

  (core module $module
    (import "beside" "grow" (func $grow-beside (param i32) (result i32)))
    (import "beside" "load" (func $load-beside (param i32) (result i64)))
    (import "beside" "store" (func $store-beside (param i32 i64)))
    (import "beside" "seen" (func $seen-beside (result i32)))
    (import "beside" "see" (func $see-beside (param i32)))
    (memory $memory (export "memory") 1)
    ;; Never frees: an instance serves few calls.
    (global $top (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
      (global.get $top)
      (global.set $top (i32.add (global.get $top) (local.get 3))))
    ;; Where Ok((Some("200 OK", []), ["ok"], false)) is laid out: a part of a response.
    (global $ok i32 (i32.const 1024))
    (data (i32.const 1024)
      "\00\00\00\00" "\01\00\00\00" "\40\04\00\00\06\00\00\00" "\00\00\00\00\00\00\00\00"
      "\50\04\00\00\01\00\00\00" "\00\00\00\00")
    (data (i32.const 1088) "200 OK")
    (data (i32.const 1104) "\60\04\00\00\02\00\00\00")
    (data (i32.const 1120) "ok")
    (func (export "next") (result i32) unreachable)
    (func (export "close") (result i32) unreachable)
    ;; CORE
  )
  (core instance $instance (instantiate $module (with "beside" (instance $beside))))
  ;; APPLICATION
)
