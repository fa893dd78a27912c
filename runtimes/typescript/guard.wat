;; Guard: every way in which swc can fail becomes an outcome.
;;
;; A panic, a full stack or a lack of memory in swc ends in `unreachable`, which no caller can catch. The recipe makes
;; each of them throw the tag below instead; the two calls of the guest ABI catch it here.
(module
  (import "__wbindgen_placeholder__" "reserve" (func $reserve (param i32) (result i32)))
  (import "__wbindgen_placeholder__" "evaluate" (func $evaluate (param i32) (result i64)))
  (import "__wbindgen_placeholder__" "failed" (func $failed_reply (param i32 i32) (result i64)))

  ;; address and length of a text that says why; without one, length 0: swc panicked; -1: its stack is full
  (tag $failed (export "failure") (param i32 i32))

  ;; called by the adapter, and by swc where it would throw in JavaScript
  (func (export "fail") (param i32 i32)
    (throw $failed (local.get 0) (local.get 1)))

  (func (export "wasmeval_reserve") (param $length i32) (result i32)
    (block $failed_here (result i32 i32)
      (return
        (try_table (result i32) (catch $failed $failed_here)
          (call $reserve (local.get $length)))))
    (drop)
    (drop)
    (i32.const 0))

  (func (export "wasmeval_evaluate") (param $length i32) (result i64)
    (block $failed_here (result i32 i32)
      (return
        (try_table (result i64) (catch $failed $failed_here)
          (call $evaluate (local.get $length)))))
    (call $failed_reply)))
