"""All that touches Wasmtime: engine, instances, WASI, and the scheduler of one worker's fibers."""
