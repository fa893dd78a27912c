"""OCI images in an archive: which layers there are, and their bytes, none of it trusted before its digest is right.

Reads an OCI image layout in a tar file, and what `docker save` writes. Source: OCI image-spec, image-layout.md,
manifest.md, layer.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import zstandard

from wasmeval.errors import SetupError

_MOST_ENTRIES = 100_000
_MOST_LAYERS = 256
_LARGEST_DOCUMENT = 8 << 20
_LARGEST_LAYER = 16 << 30
_DEEPEST_INDEX = 4
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEXES = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its file in the archive, the digest and size of that file ("" and -1 when the archive has none), and
    the digest of what it holds."""

    name: str
    digest: str
    size: int
    diff_id: str


class Archive:
    """The one image of a file; a context manager. Raises SetupError for whatever is not as it must be."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(path, "r:*")  # noqa: SIM115 (closed by __exit__)
        except (OSError, tarfile.TarError) as error:
            raise SetupError(f"{path} cannot be read as an OCI archive: {error}") from error
        self._entries: dict[str, tarfile.TarInfo] = {}

    def __enter__(self) -> Archive:
        try:
            for number, entry in enumerate(self._tar):
                if number >= _MOST_ENTRIES:
                    raise self._wrong(f"has more than {_MOST_ENTRIES:,} entries")
                self._entries[entry.name.removeprefix("./")] = entry
        except (OSError, tarfile.TarError) as error:
            self._tar.close()
            raise SetupError(f"{self._path} cannot be read as an OCI archive: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def layers(self) -> list[Layer]:
        """The layers of the image for this machine's architecture, the lowest first."""
        if "index.json" in self._entries:
            found = self._oci_layers()
        elif "manifest.json" in self._entries:
            found = self._docker_layers()
        else:
            raise self._wrong("has neither an index.json (OCI) nor a manifest.json (docker save)")
        if not 0 < len(found) <= _MOST_LAYERS:
            raise self._wrong(f"has an image of {len(found)} layers; 1 to {_MOST_LAYERS} are read")
        return found

    def unpacked(self, layer: Layer) -> Iterator[bytes]:
        """The tar file that `layer` holds, piece by piece.

        Raises SetupError at the end when a digest or the size is another: nothing made of it may be used then.
        """
        packed, plain = hashlib.sha256(), hashlib.sha256()
        size = total = 0
        unpacker = _Unpacker()
        with self._open(layer.name) as file:
            while piece := file.read(_CHUNK):
                packed.update(piece)
                size += len(piece)
                for data in unpacker.feed(piece):
                    plain.update(data)
                    total += len(data)
                    if total > _LARGEST_LAYER:
                        raise self._wrong(f"has a layer of more than {_LARGEST_LAYER >> 30} GiB")
                    yield data
        unpacker.finish()
        if layer.digest and (packed.hexdigest() != layer.digest or size != layer.size):
            raise self._wrong(f"is damaged: the digest of {layer.name} is another than its manifest says")
        if plain.hexdigest() != layer.diff_id:
            raise self._wrong(f"is damaged: what {layer.name} holds is not what its configuration says")

    def _oci_layers(self) -> list[Layer]:
        manifest = self._one_manifest(self._document("index.json"))
        config = self._blob_document(_of(manifest, "config", dict))
        diff_ids = self._diff_ids(config)
        descriptors = _of(manifest, "layers", list)
        if len(descriptors) != len(diff_ids):
            raise self._wrong("has a manifest and a configuration of different layers")
        layers = []
        for descriptor, diff_id in zip(descriptors, diff_ids, strict=True):
            digest, size = self._reference(descriptor)
            layers.append(Layer(f"blobs/sha256/{digest}", digest, size, diff_id))
        return layers

    def _one_manifest(self, index: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        """The one manifest below `index` that is for this machine."""
        found: dict[str, dict[str, Any]] = {}
        others: list[str] = []
        for descriptor in _of(index, "manifests", list)[:_MOST_LAYERS]:
            entry = descriptor if isinstance(descriptor, dict) else {}
            system = _platform(entry)
            if system not in {"", f"linux/{_architecture()}"}:
                others.append(system)
                continue
            digest, _ = self._reference(entry)
            if entry.get("mediaType") in _INDEXES:
                if depth >= _DEEPEST_INDEX:
                    raise self._wrong("has indexes in indexes without end")
                found[digest] = self._one_manifest(self._blob_document(entry), depth + 1)
            else:
                found[digest] = self._blob_document(entry)
        if not found:
            has = f"; it has {', '.join(sorted(set(others)))}" if others else ""
            raise self._wrong(f"has no image for linux/{_architecture()}{has}")
        if len(found) > 1:
            raise self._wrong(f"has {len(found)} images, and which is meant is not said; save one alone")
        return next(iter(found.values()))

    def _docker_layers(self) -> list[Layer]:
        documents = self._document("manifest.json", list)
        if len(documents) != 1 or not isinstance(documents[0], dict):
            raise self._wrong(f"has {len(documents)} images; save one alone")
        config = self._document(_of(documents[0], "Config", str))
        diff_ids = self._diff_ids(config)
        names = _of(documents[0], "Layers", list)
        if len(names) != len(diff_ids) or not all(isinstance(name, str) for name in names):
            raise self._wrong("has a manifest and a configuration of different layers")
        return [Layer(name, "", -1, diff_id) for name, diff_id in zip(names, diff_ids, strict=True)]

    def _diff_ids(self, config: Mapping[str, Any]) -> list[str]:
        system = f"{config.get('os')}/{config.get('architecture')}"
        if system != f"linux/{_architecture()}":
            raise self._wrong(f"is an image for {system[:40]}; this machine runs linux/{_architecture()}")
        digests = [_DIGEST.fullmatch(str(one)) for one in _of(_of(config, "rootfs", dict), "diff_ids", list)]
        if not all(digests):
            raise self._wrong("names a layer by something else than a SHA-256")
        return [digest[1] for digest in digests if digest]

    def _reference(self, descriptor: object) -> tuple[str, int]:
        """Digest and size of a descriptor."""
        entry = descriptor if isinstance(descriptor, dict) else {}
        digest, size = _DIGEST.fullmatch(str(entry.get("digest"))), entry.get("size")
        if not digest or not isinstance(size, int) or size < 0:
            raise self._wrong("has a descriptor without a SHA-256 and a size")
        return digest[1], size

    def _blob_document(self, descriptor: object) -> dict[str, Any]:
        digest, _ = self._reference(descriptor)
        name = f"blobs/sha256/{digest}"
        text = self._read(name)
        if hashlib.sha256(text).hexdigest() != digest:
            raise self._wrong(f"is damaged: the digest of {name} is another")
        document: dict[str, Any] = self._decode(text, name, dict)
        return document

    def _document(self, name: str, kind: type[Any] = dict) -> Any:
        return self._decode(self._read(name), name, kind)

    def _decode(self, text: bytes, name: str, kind: type[Any]) -> Any:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise self._wrong(f"has a {name[:80]} that is no JSON") from None
        if not isinstance(document, kind):
            raise self._wrong(f"has a {name[:80]} of another form")
        return document

    def _read(self, name: str) -> bytes:
        with self._open(name) as file:
            text = file.read(_LARGEST_DOCUMENT + 1)
        if len(text) > _LARGEST_DOCUMENT:
            raise self._wrong(f"has a {name[:80]} of more than {_LARGEST_DOCUMENT >> 20} MiB")
        return text

    def _open(self, name: str) -> IO[bytes]:
        entry = self._entries.get(name.removeprefix("./"))
        try:
            # Older ones of docker have links between layers; they lead to other entries of the archive only.
            file = self._tar.extractfile(entry) if entry is not None else None
        except (KeyError, tarfile.TarError, OSError, RecursionError):
            file = None
        if file is None:
            raise self._wrong(f"lacks {name[:120]}")
        return file

    def _wrong(self, what: str) -> SetupError:
        return SetupError(f"the OCI archive {self._path} {what}")


def _of(document: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    value = document.get(key)
    if not isinstance(value, kind):
        raise SetupError(f"the OCI archive has no usable `{key}` in one of its documents")
    return value


def _platform(descriptor: Mapping[str, Any]) -> str:
    system = descriptor.get("platform")
    return f"{system.get('os')}/{system.get('architecture')}"[:40] if isinstance(system, dict) else ""


def _architecture() -> str:
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


class _Unpacker:
    """Undoes a layer's compression, which its first bytes tell; pieces come out bounded, however small they were."""

    def __init__(self) -> None:
        self._kind = ""
        self._head = b""
        self._gzip: Any = None
        self._zstd: Any = None

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if not self._kind:
            self._head += piece
            if len(self._head) < 4:
                return
            piece, self._head = self._head, b""
            self._kind = self._told(piece)
        if self._kind == "gzip":
            yield from self._feed_gzip(piece)
        elif self._kind == "zstd":
            yield from self._feed_zstd(piece)
        else:
            yield piece

    def finish(self) -> None:
        if (self._gzip is not None and not self._gzip.eof) or (self._zstd is not None and not self._zstd.eof):
            raise SetupError("a layer of the OCI archive is cut short")

    def _told(self, head: bytes) -> str:
        if head.startswith(b"\x1f\x8b"):
            self._gzip = zlib.decompressobj(wbits=31)
            return "gzip"
        if head.startswith(b"\x28\xb5\x2f\xfd"):
            # The window of a hostile frame is memory of ours.
            self._zstd = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
            return "zstd"
        return "none"

    def _feed_gzip(self, piece: bytes) -> Iterator[bytes]:
        try:
            while piece:
                if self._gzip.eof:
                    # Another member follows, or zeros that fill a block.
                    if not piece.strip(b"\0"):
                        return
                    self._gzip = zlib.decompressobj(wbits=31)
                if data := self._gzip.decompress(piece, _CHUNK):
                    yield data
                piece = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail
        except zlib.error as error:
            raise SetupError(f"a layer of the OCI archive is no gzip: {error}") from error

    def _feed_zstd(self, piece: bytes) -> Iterator[bytes]:
        try:
            # Fed in small parts: each may become a thousand times as large.
            for start in range(0, len(piece), 1 << 12):
                if data := self._zstd.decompress(piece[start : start + (1 << 12)]):
                    yield data
        except zstandard.ZstdError as error:
            raise SetupError(f"a layer of the OCI archive is no zstd: {error}") from error
