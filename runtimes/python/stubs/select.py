"""Stands for the extension module `select`: waiting for nothing works (it sleeps), waiting for a file needs sockets."""

import errno as _errno

error = OSError


def select(readers, writers, exceptional, timeout=None):
    if readers or writers or exceptional:
        failure = OSError(_errno.ENOTSUP, "this runtime has no sockets or pipes to wait for")
        failure._wasmeval_need = "sockets"
        raise failure
    if timeout is None:
        raise RuntimeError("select() would wait for ever: there is nothing to wait for")
    import time

    time.sleep(timeout)
    return [], [], []
