;; A component's export of wasgi:gateway/application, by hand, around a core instance $instance.
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
