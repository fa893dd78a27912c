"""Runs in a sandbox, by itself: applies one layer of an OCI image to a root, or finishes that root.

    python layers.py apply ROOT <LAYER.tar
    python layers.py finish ROOT

A layer is anybody's. Before its first byte is read, this process has nothing left but ROOT: whatever its names and
links lead to lies in there. Source: OCI image-spec, layer.md. Imports nothing of wasmeval.
"""

import os
import shutil
import stat
import sys
import tarfile

MOST_BYTES = 16 << 30
MOST_ENTRIES = 2_000_000
LONGEST_NAME = 4096

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class Refused(Exception):
    """A layer asks for something that no honest layer does; the message says what."""


class Layer:
    """Applies the entries of one layer to the root, which is / when this runs for real."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._made: set[str] = set()
        self._bytes = 0
        self.skipped = 0

    def apply(self, archive: tarfile.TarFile) -> None:
        """Every entry, in order. Raises Refused, or OSError and tarfile.TarError for what cannot be done or read."""
        directories: list[tuple[str, tarfile.TarInfo]] = []
        for number, entry in enumerate(archive, 1):
            self._bytes += max(0, entry.size)
            if number > MOST_ENTRIES or self._bytes > MOST_BYTES:
                raise Refused(f"a layer has more than {MOST_ENTRIES:,} entries or {MOST_BYTES >> 30} GiB")
            name = _relative(entry.name)
            if not name:
                continue
            parent, _, last = name.rpartition("/")
            if last.startswith(WHITEOUT):
                self._whiteout(parent, last)
                continue
            self._make_parents(parent)
            self._put(archive, entry, name)
            self._remember(name)
            if entry.isdir():
                directories.append((name, entry))
        # What was put into a directory changed its time.
        for name, entry in reversed(directories):
            self._set_times(name, entry)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _whiteout(self, parent: str, last: str) -> None:
        """Remove what lower layers have by that name, or, when opaque, all they have there."""
        if last != OPAQUE:
            hidden = last[len(WHITEOUT) :]
            if hidden in {"", ".", ".."}:
                raise Refused(f"a layer hides {hidden!r}")
            _remove(self._path(os.path.join(parent, hidden)))
            return
        self._clear(parent)

    def _clear(self, folder: str) -> None:
        """Remove from `folder` what this layer did not put there."""
        path = self._path(folder)
        if not os.path.isdir(path) or os.path.islink(path):
            return
        for name in os.listdir(path):
            inner = os.path.join(folder, name)
            if inner not in self._made:
                _remove(self._path(inner))
            elif os.path.isdir(self._path(inner)):
                self._clear(inner)

    def _remember(self, name: str) -> None:
        """This layer made `name`, so it has the folders above it too."""
        while name and name not in self._made:
            self._made.add(name)
            name = name.rpartition("/")[0]

    def _make_parents(self, parent: str) -> None:
        if not parent or os.path.isdir(self._path(parent)):
            return
        above = parent.rpartition("/")[0]
        self._make_parents(above)
        path = self._path(parent)
        if os.path.lexists(path):
            raise Refused(f"a layer puts files into {parent!r}, which is no directory")
        os.mkdir(path, 0o755)

    def _put(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> None:
        path = self._path(name)
        if entry.isdir():
            if not os.path.isdir(path) or os.path.islink(path):
                _remove(path)
                os.mkdir(path, 0o700)
            os.chmod(path, _mode(entry))
            return
        if not (entry.isreg() or entry.issym() or entry.islnk()):
            # Devices and pipes: the guest's kernel makes its own.
            self.skipped += 1
            return
        if entry.islnk():
            target = _relative(entry.linkname)
            if target == name:
                return
            _remove(path)
            os.link(self._path(target), path, follow_symlinks=False)
            return
        _remove(path)
        if entry.issym():
            if not entry.linkname or len(entry.linkname) > LONGEST_NAME:
                raise Refused(f"a layer has a symbolic link {name!r} that leads nowhere")
            os.symlink(entry.linkname, path)
            return
        self._put_file(archive, entry, path)
        self._set_times(name, entry)

    def _put_file(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        source = archive.extractfile(entry)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            if source is not None:
                shutil.copyfileobj(source, file, 1 << 20)
            os.fchmod(file.fileno(), _mode(entry))

    def _set_times(self, name: str, entry: tarfile.TarInfo) -> None:
        when = min(max(0, int(entry.mtime)), (1 << 32) - 1)
        try:
            os.utime(self._path(name), (when, when), follow_symlinks=False)
        except OSError:
            # Replaced by a later entry of the same layer.
            return


def _relative(name: str) -> str:
    """`name` from the root, without what changes nothing; "" for the root. Raises Refused for one that goes up."""
    if len(name) > LONGEST_NAME or "\0" in name:
        raise Refused(f"a layer has a name of {len(name)} characters")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise Refused(f"a layer has a name with `..`: {name[:200]!r}")
    return "/".join(parts)


def _mode(entry: tarfile.TarInfo) -> int:
    """Its permissions. All files become root's, so what ran as another user must not run as root now."""
    mode = stat.S_IMODE(entry.mode)
    if entry.uid != 0:
        mode &= ~stat.S_ISUID
    if entry.gid != 0:
        mode &= ~stat.S_ISGID
    return mode


def _remove(path: str) -> None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def main(step: str, root: str) -> None:
    # What is needed is loaded before the root is another one, in which modules would be the layer's.
    import encodings.idna  # noqa: F401
    import grp  # noqa: F401
    import pwd  # noqa: F401

    import inside  # type: ignore[import-not-found]  # beside this file

    os.umask(0o022)
    os.chroot(root)
    os.chdir("/")
    sys.path.clear()
    if step == "finish":
        inside.finish()
        return
    layer = Layer()
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|", errors="surrogateescape") as archive:
        layer.apply(archive)
    # Padding after the end, which the digest covers.
    while sys.stdin.buffer.read(1 << 20):
        pass
    if layer.skipped:
        print(f"left out {layer.skipped} devices and pipes")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    try:
        main(*sys.argv[1:])
    except (Refused, OSError, tarfile.TarError) as error:
        sys.exit(str(error) or repr(error))
