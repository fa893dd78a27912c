"""Session: an instance that lives on between its steps, in one worker.

After a good step its mirror is brought up to date, when there is time for it or when it is needed. A step that ends
badly takes the instance with it, and the next one begins with what the mirror has: nothing of the bad step is left.
"""

from __future__ import annotations

from collections.abc import Callable

from wasmeval.wasm import capi
from wasmeval.wasm.instance import Image, Instance, Trapped
from wasmeval.wasm.mirror import Mirror
from wasmeval.wasm.pages import Pagemap


class Session:
    """One session. `runs` while a step of it does; its steps follow one another, which is its owner's business."""

    __slots__ = (
        "_broken",
        "_instance",
        "_is_kept",
        "_mark",
        "_mirror",
        "_pagemap",
        "_renews",
        "image",
        "runs",
    )

    def __init__(
        self, image: Image, pagemap: Pagemap, mirror: Mirror | None = None, broken: str = ""
    ) -> None:
        """`broken` says why it cannot go on, when it cannot: each of its steps then ends so."""
        self._broken = broken
        self.image = image
        self.runs = False
        self._pagemap = pagemap
        self._mirror = mirror
        self._mark: Mirror | None = None
        self._instance: Instance | None = None
        self._is_kept = True
        self._renews = mirror is not None

    @property
    def grown_bytes(self) -> int:
        """Beyond its image, what a guest's memory has been after a good step."""
        return self._mirror.rest.memory_bytes - self.image.runtime.initial_memory_bytes if self._mirror else 0

    def take_renewal(self) -> bool:
        """Whether the step that begins is the first in a copy of a memory: what is random is to be drawn anew."""
        renews, self._renews = self._renews, False
        return renews

    def enter(self, fresh: Callable[[], Instance]) -> Instance:
        """The instance for the next step; `fresh` gives one for the first. Raises Trapped."""
        if self._broken:
            raise Trapped(capi.HOST_TRAP, detail=self._broken)
        self.keep()
        self.runs = True
        instance = self._instance
        if instance is None:
            instance = self._mirror.instance(self.image) if self._mirror else fresh()
        self._instance = instance
        instance.wasi.stdin = instance.wasi.on_output = None
        return instance

    def leave(self, is_good: bool) -> Instance | None:
        """The step is over. After a bad one the instance is given back, to be dropped."""
        self.runs = False
        if is_good:
            self._is_kept = False
            return None
        instance, self._instance = self._instance, None
        self._renews = self._mirror is not None
        return instance

    def keep(self) -> None:
        """Bring the mirror up to date with the last good step."""
        if self._is_kept:
            return
        assert self._instance is not None
        if self._mirror is None:
            self._mirror = Mirror()
        self._mirror.take(self._instance, self._pagemap)
        self._is_kept = True

    def mirror(self) -> Mirror | None:
        """What it was after its last good step; None before its first. Not to be changed."""
        if not self.runs:
            self.keep()
        return self._mirror

    def fork(self) -> Session:
        """Another session that goes on from the last good step of this one."""
        mirror = self.mirror()
        return Session(self.image, self._pagemap, mirror.twin() if mirror else None, self._broken)

    def mark(self) -> None:
        """Remember what it was after its last good step; what was remembered before is let go."""
        mirror = self.mirror()
        self._forget_mark()
        self._mark = mirror.twin() if mirror else None

    def revert(self) -> Session:
        """Another session that goes on from what was marked, and is marked so itself. Where nothing was, its steps end
        badly."""
        mark = self._mark
        if mark is None:
            return Session(self.image, self._pagemap, None, self._broken or "nothing of it was marked")
        other = Session(self.image, self._pagemap, mark.twin())
        other._mark = mark.twin()
        return other

    def close(self) -> None:
        """Drop it; not while a step runs."""
        self._is_kept = True
        if self._instance is not None:
            self._instance.close()
            self._instance = None
        if self._mirror is not None:
            self._mirror.close()
            self._mirror = None
        self._forget_mark()

    def _forget_mark(self) -> None:
        if self._mark is not None:
            self._mark.close()
            self._mark = None
