;; A program that has its data by WASI 0.2 and hands it to 0.3: the type of 0.3's descriptors is that of 0.2's, as a component may say.
(component
  (import "wasi:filesystem/types@0.2.12" (instance $older
    (export "descriptor" (type (sub resource)))))
  (alias export $older "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.12" (instance $preopens
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $known (eq $outer)))
    (export "get-directories" (func (result (list (tuple (own $known) string)))))))
  (import "wasi:filesystem/types@0.3.0" (instance $newer
    (alias outer 1 $descriptor (type $outer))
    (export "descriptor" (type $known (eq $outer)))
    (type $code (variant
      (case "access") (case "already") (case "bad-descriptor") (case "busy") (case "deadlock") (case "quota")
      (case "exist") (case "file-too-large") (case "illegal-byte-sequence") (case "in-progress") (case "interrupted")
      (case "invalid") (case "io") (case "is-directory") (case "loop") (case "too-many-links") (case "message-size")
      (case "name-too-long") (case "no-device") (case "no-entry") (case "no-lock") (case "insufficient-memory")
      (case "insufficient-space") (case "not-directory") (case "not-empty") (case "not-recoverable")
      (case "unsupported") (case "no-tty") (case "no-such-device") (case "overflow") (case "not-permitted")
      (case "pipe") (case "read-only") (case "invalid-seek") (case "text-file-busy") (case "cross-device")
      (case "other" (option string))))
    (export "error-code" (type $error (eq $code)))
    (export "[method]descriptor.create-directory-at" (func async
      (param "self" (borrow $known)) (param "path" string) (result (result (error $error)))))))

  (core module $libc
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $free))
      (global.set $free (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 7)) (i32.const -8)))
      (local.get $at)))
  (core instance $libc (instantiate $libc))
  (core func $get (canon lower (func $preopens "get-directories")
    (memory $libc "memory") (realloc (func $libc "realloc"))))
  (core func $make (canon lower (func $newer "[method]descriptor.create-directory-at") async
    (memory $libc "memory") (realloc (func $libc "realloc"))))

  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "get" (func $get (param i32)))
    (import "host" "make" (func $make (param i32 i32 i32 i32) (result i32)))
    (data (i32.const 100) "made")
    (func (export "run") (result i32)
      (call $get (i32.const 8))
      ;; Its data is all that it sees.
      (if (i32.ne (i32.load (i32.const 12)) (i32.const 1)) (then unreachable))
      ;; What is refused is answered at once (2): the kernel would take its time.
      (if (i32.ne (i32.const 2) (i32.and (i32.const 15)
            (call $make (i32.load (i32.load (i32.const 8))) (i32.const 100) (i32.const 4) (i32.const 200))))
        (then unreachable))
      ;; And it is an error.
      (if (i32.eqz (i32.load8_u (i32.const 200))) (then unreachable))
      (i32.const 0)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "get" (func $get)) (export "make" (func $make))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.12" (instance $command)))
