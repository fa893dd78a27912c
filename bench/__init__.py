"""The benchmark: what wasmeval takes on this machine, each figure beside its peer in the same run.

    make bench
    python -m bench [ROW...] [--quick] [--json FILE] [--update-readme]
    python -m bench profile

It asserts nothing. See bench/README.md for what each row measures and how.
"""
