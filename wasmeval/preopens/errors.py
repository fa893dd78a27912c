"""Errors of the kernel as WASI's, as far as a guest may be told."""

from __future__ import annotations

import errno as host

from wasmeval.wasm import errno

_CODES = {
    host.EACCES: errno.ACCES,
    host.EBADF: errno.BADF,
    host.EBUSY: errno.BUSY,
    host.EDQUOT: errno.NOSPC,
    host.EEXIST: errno.EXIST,
    host.EFBIG: errno.FBIG,
    host.EILSEQ: errno.ILSEQ,
    host.EINVAL: errno.INVAL,
    host.EISDIR: errno.ISDIR,
    host.ELOOP: errno.LOOP,
    host.EMFILE: errno.MFILE,
    host.ENAMETOOLONG: errno.NAMETOOLONG,
    host.ENFILE: errno.MFILE,
    host.ENOENT: errno.NOENT,
    host.ENOSPC: errno.NOSPC,
    host.ENOTDIR: errno.NOTDIR,
    host.ENOTEMPTY: errno.NOTEMPTY,
    host.EPERM: errno.PERM,
    host.EROFS: errno.ROFS,
    host.ETXTBSY: errno.BUSY,
    # A path that leads out of its folder.
    host.EXDEV: errno.PERM,
}


def code_of(error: OSError) -> int:
    """The WASI errno of a failed call; IO for what a guest has no business with."""
    return _CODES.get(error.errno or 0, errno.IO)
