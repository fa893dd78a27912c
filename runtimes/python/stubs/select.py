"""Stands for the extension module `select`: waiting for nothing works (it sleeps), waiting for a file needs sockets."""

import errno as _errno

import _wasmeval

error = OSError

_refuse = _wasmeval.refusal(OSError, (_errno.ENOTSUP, "this runtime has no sockets or pipes to wait for"), "sockets")


def select(readers, writers, exceptional, timeout=None):
    if readers or writers or exceptional:
        _refuse()
    if timeout is None:
        raise RuntimeError("select() would wait for ever: there is nothing to wait for")
    import time

    time.sleep(timeout)
    return [], [], []
