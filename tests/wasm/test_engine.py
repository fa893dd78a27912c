"""The engine and its cache refuse what they were not made for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guests import catalogue, guest
from wasmeval import SetupError
from wasmeval.wasm import installation
from wasmeval.wasm.cache import Cache, unpack
from wasmeval.wasm.engine import Engine
from wasmeval.wasm.installation import check_version


@pytest.mark.parametrize("version", ["", "49.9.9", "50.0.0", "51.0.0", "50.0.1rc1", "x", "1"])
def test_another_wasmtime_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    check_version()
    monkeypatch.setattr(installation, "VERSION", version)
    with pytest.raises(SetupError, match=r"is not in \[50\.0\.1, 51\)|\(unknown\)"):
        check_version()


@pytest.mark.parametrize("module", [b"", b"\0asm", b"\0asm\1\0\0\0\xff", b"x" * 100])
def test_what_is_no_module_is_refused(engine: Engine, module: bytes) -> None:
    with pytest.raises(SetupError, match="wasmtime: "):
        engine.compile(module)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x7fELF" + bytes(1000)])
def test_what_is_not_compiled_code_is_refused(engine: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.cwasm"
    path.write_bytes(content)
    with pytest.raises(SetupError, match="wasmtime: "):
        engine.load(path)
    with pytest.raises(SetupError, match="wasmtime: "):
        engine.load(tmp_path / "none.cwasm")


def test_the_cache_compiles_once(tmp_path: Path) -> None:
    installed = catalogue(tmp_path / "images", {"one": guest("(call $null)")})
    cache = Cache(tmp_path / "cache")
    assert cache.find(installed["one"]) is None
    (compiled,) = cache.prepare(installed)
    written = compiled.module.stat().st_mtime_ns
    assert compiled.module.stat().st_mode & 0o077 == 0
    assert Cache(tmp_path / "cache").prepare(installed) == [compiled]
    assert compiled.module.stat().st_mtime_ns == written
    assert not [name for name in os.listdir(cache.folder) if name.startswith(".new")]


def test_another_image_is_another_entry(tmp_path: Path) -> None:
    first = catalogue(tmp_path / "a", {"one": guest("(call $null)")})
    second = catalogue(tmp_path / "b", {"one": guest("unreachable")})
    cache = Cache(tmp_path / "cache")
    assert cache.prepare(first)[0].module != cache.prepare(second)[0].module


def test_an_altered_image_is_refused(tmp_path: Path) -> None:
    import lzma

    installed = catalogue(tmp_path / "images", {"one": guest("(call $null)")})
    blob = installed["one"].image
    for data in (
        b"",
        b"no xz",
        lzma.compress(b"another module"),
        lzma.compress(bytes(50_000_000)),
        blob.path.read_bytes()[:50],
    ):
        blob.path.write_bytes(data)
        with pytest.raises(SetupError, match=r"cannot be read|is damaged"):
            unpack(blob)
        with pytest.raises(SetupError):
            Cache(tmp_path / "cache").prepare(installed)
    assert Cache(tmp_path / "cache").find(installed["one"]) is None
