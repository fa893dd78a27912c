"""Runtime and Catalogue: the interpreter images that are installed, as their manifests describe them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wasmeval.errors import InvalidArgument, SetupError

ABI_VERSION = 1
IMAGES = Path(__file__).parent / "images"


class Blob(NamedTuple):
    """One xz-compressed file of an image: its path, and the SHA-256 and size of what it holds."""

    path: Path
    sha256: str
    size_bytes: int


class Runtime(NamedTuple):
    """One interpreter, pre-initialised: what runs the snippets of its languages. See runtimes/abi.md.

    `initial_memory_bytes` is the linear memory of a fresh instance, `minimum_memory_bytes` the least limit with
    which a snippet can run, `max_wasm_stack` the native stack its recursion needs, `warm_up` the snippet that
    prepares an instance. One that `translates_to` another runtime runs nothing: it makes code for that one.
    """

    name: str
    version: str
    interpreter: str
    languages: tuple[str, ...]
    image: Blob
    library: Blob | None
    library_mount: str
    initial_memory_bytes: int
    minimum_memory_bytes: int
    max_wasm_stack: int
    fuel_per_millisecond: int
    warm_up: str
    translates_to: str = ""

    @property
    def image_sha256(self) -> str:
        """Digest of the uncompressed module: the same digest gives the same results and the same fuel."""
        return self.image.sha256

    @classmethod
    def load(cls, folder: Path) -> Runtime:
        """The runtime whose `manifest.json` is in `folder`. Raises SetupError when it is not a manifest of this ABI."""
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_bytes())
            if manifest["abi"] != ABI_VERSION:
                raise SetupError(
                    f"{path}: ABI {manifest['abi']} is not {ABI_VERSION}; install a matching wasmeval"
                )
            library = manifest["library"]
            return cls(
                name=manifest["name"],
                version=manifest["version"],
                interpreter=manifest["interpreter"],
                languages=tuple(manifest["languages"]),
                image=_blob(folder, manifest["image"]),
                library=_blob(folder, library) if library else None,
                library_mount=library["mount"] if library else "",
                initial_memory_bytes=manifest["memory"]["initial_bytes"],
                minimum_memory_bytes=manifest["memory"]["minimum_bytes"],
                max_wasm_stack=manifest["max_wasm_stack"],
                fuel_per_millisecond=manifest["fuel_per_millisecond"],
                warm_up=manifest["warm_up"],
                translates_to=manifest.get("translates_to", ""),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{path} is no usable manifest: {error!r}; reinstall wasmeval") from error


def _blob(folder: Path, entry: dict[str, Any]) -> Blob:
    return Blob(folder / entry["file"], entry["sha256"], entry["bytes"])


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The installed runtimes, and which of them a language means."""

    runtimes: tuple[Runtime, ...]

    @classmethod
    def installed(cls, images: Path = IMAGES) -> Catalogue:
        """All runtimes below `images`, by name. Raises SetupError when there is none, or two claim a language."""
        runtimes = tuple(Runtime.load(path.parent) for path in sorted(images.glob("*/manifest.json")))
        if not runtimes:
            raise SetupError(f"no runtime image below {images}; reinstall wasmeval")
        languages = [language for runtime in runtimes for language in runtime.languages]
        twice = sorted({language for language in languages if languages.count(language) > 1})
        if twice:
            raise SetupError(f"two runtimes below {images} claim the language {twice[0]!r}; remove one")
        names = {runtime.name for runtime in runtimes if not runtime.translates_to}
        for runtime in runtimes:
            if runtime.translates_to and runtime.translates_to not in names:
                raise SetupError(
                    f"{runtime.name} translates to {runtime.translates_to}, which is not installed; reinstall wasmeval"
                )
        return cls(runtimes)

    def __iter__(self) -> Iterator[Runtime]:
        return iter(self.runtimes)

    def __getitem__(self, name: str) -> Runtime:
        return next(runtime for runtime in self.runtimes if runtime.name == name)

    def for_language(self, language: str) -> Runtime:
        """The runtime of `language`. Raises InvalidArgument naming the known languages."""
        for runtime in self.runtimes:
            if language in runtime.languages:
                return runtime
        known = ", ".join(sorted(name for runtime in self.runtimes for name in runtime.languages))
        raise InvalidArgument("language", f"unknown language {language[:40]!r}; known: {known}")
