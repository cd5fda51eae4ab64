;; The contract's world by hand, around a core module whose attack is put in place of "CORE".
(component
  ;; A module with a memory of its own, for attacks that take two.
  (core module $beside
    (memory 0)
    (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0))))
  (core instance $beside (instantiate $beside))

  (core module $module
    (import "beside" "grow" (func $grow-beside (param i32) (result i32)))
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
  (alias core export $instance "memory" (core memory $memory))
  (alias core export $instance "realloc" (core func $realloc))

  (type $part (tuple (option (tuple string (list (tuple string string)))) (list (list u8)) bool))
  (type $exc-info (record (field "name" string) (field "message" string) (field "traceback" string)))
  (func $call
    (param "variables" (list u8)) (param "https" bool) (param "multiprocess" bool) (param "run-once" bool)
    (result (result $part (error $exc-info)))
    (canon lift (core func $instance "call") (memory $memory) (realloc $realloc)))
  (func $next (result (result $part (error $exc-info)))
    (canon lift (core func $instance "next") (memory $memory)))
  (func $close (result (result (error $exc-info)))
    (canon lift (core func $instance "close") (memory $memory)))

  ;; An exported function may only speak of records that have a name outside: this component names the one there is.
  (component $named
    (type $part (tuple (option (tuple string (list (tuple string string)))) (list (list u8)) bool))
    (type $exc-info-inside (record (field "name" string) (field "message" string) (field "traceback" string)))
    (import "import-exc-info" (type $exc-info (eq $exc-info-inside)))
    (import "import-call" (func $call
      (param "variables" (list u8)) (param "https" bool) (param "multiprocess" bool) (param "run-once" bool)
      (result (result $part (error $exc-info)))))
    (import "import-next" (func $next (result (result $part (error $exc-info)))))
    (import "import-close" (func $close (result (result (error $exc-info)))))
    (export $exc-info-outside "exc-info" (type $exc-info-inside))
    (export "call" (func $call) (func
      (param "variables" (list u8)) (param "https" bool) (param "multiprocess" bool) (param "run-once" bool)
      (result (result $part (error $exc-info-outside)))))
    (export "next" (func $next) (func (result (result $part (error $exc-info-outside)))))
    (export "close" (func $close) (func (result (result (error $exc-info-outside)))))
  )
  (instance $application (instantiate $named
    (with "import-exc-info" (type $exc-info))
    (with "import-call" (func $call))
    (with "import-next" (func $next))
    (with "import-close" (func $close))))
  (export "wasgi:gateway/application@0.1.0" (instance $application))
)
