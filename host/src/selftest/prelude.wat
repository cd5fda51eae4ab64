;; What stands in each attacker's module, unless it has its own.
;; PART memory
(memory $memory (export "memory") 2)
;; PART cabi_realloc
;; Never frees; where there is no more, it begins again: what calls before have had is theirs no more.
(global $top (mut i32) (i32.const 65536))
(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
  (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
  (if (i32.gt_u (i32.add (global.get $top) (local.get 3)) (i32.mul (memory.size) (i32.const 65536)))
    (then (global.set $top (i32.const 65536))))
  (global.get $top)
  (global.set $top (i32.add (global.get $top) (local.get 3))))
;; PART ok
;; Where Ok((Some("200 OK", []), ["ok"], false)) is laid out: a part of a response.
(global $ok i32 (i32.const 1024))
(data (i32.const 1024)
  "\00\00\00\00" "\01\00\00\00" "\40\04\00\00\06\00\00\00" "\00\00\00\00\00\00\00\00"
  "\50\04\00\00\01\00\00\00" "\00\00\00\00")
(data (i32.const 1088) "200 OK")
(data (i32.const 1104) "\60\04\00\00\02\00\00\00")
(data (i32.const 1120) "ok")
;; The same with another text: "nothing", for who got nothing.
(global $nothing i32 (i32.const 1152))
(data (i32.const 1152)
  "\00\00\00\00" "\01\00\00\00" "\40\04\00\00\06\00\00\00" "\00\00\00\00\00\00\00\00"
  "\a8\04\00\00\01\00\00\00" "\00\00\00\00")
(data (i32.const 1192) "\b0\04\00\00\07\00\00\00")
(data (i32.const 1200) "nothing")
;; PART next
(func (export "next") (result i32) unreachable)
;; PART close
(func (export "close") (result i32) (i32.const 1280))
