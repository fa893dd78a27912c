"""`wasmeval vm build | list | remove`: the images of the VM tier."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from wasmeval.cli import codes
from wasmeval.cli.output import table
from wasmeval.vm import images
from wasmeval.vm.building import making
from wasmeval.vm.building.progress import Stage
from wasmeval.vm.building.recipe import Recipe
from wasmeval.vm.images import VmImage


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand that was chosen."""
    commands: dict[str, Callable[[argparse.Namespace], int]] = {
        "build": build,
        "list": list_images,
        "remove": remove,
    }
    return commands[arguments.vm_command](arguments)


def build(arguments: argparse.Namespace) -> int:
    """Build an image, its stages shown on standard error, and say on standard output what it is."""
    recipe = Recipe(
        packages=tuple(arguments.packages),
        python_packages=tuple(arguments.pip_packages),
        requirements=arguments.pip,
        build_essential=arguments.build_essential,
        oci=arguments.oci,
        **{
            name: size
            for name in ("memory_bytes", "disk_bytes")
            if (size := getattr(arguments, name)) is not None
        },
    )
    try:
        with _ended_by_signals(), shown(sys.stderr) as show:
            image = making.build(arguments.name, recipe, progress=show)
    except making.BuildFailed as error:
        print(error.tail, file=sys.stderr)
        raise
    print(f"{image.name}: {_languages(image)}; {_size(image.size_bytes)} in {image.folder}")
    return codes.OK


def list_images(arguments: argparse.Namespace) -> int:
    """Print the images by name. One that is damaged is told on standard error, and the code says so."""
    found, wrong = images.list_images()
    if arguments.json:
        print(json.dumps([describe(image) for image in found], indent=2))
    elif found:
        heads = ("NAME", "LANGUAGES", "SIZE", "MEMORY", "DISK", "FROM", "CREATED")
        print(table(heads, [_cells(image) for image in found]))
    elif not wrong:
        print("No VM images; `wasmeval vm build` makes one.")
    for message in wrong:
        print(f"wasmeval: {message}", file=sys.stderr)
    return codes.SERVICE_FAILED if wrong else codes.OK


def remove(arguments: argparse.Namespace) -> int:
    """Remove images, each with its snapshot."""
    for name in arguments.names:
        images.remove(name)
        print(f"removed {name}")
    return codes.OK


def describe(image: VmImage) -> dict[str, Any]:
    """`image` as JSON has it."""
    manifest = image.manifest
    return {
        "name": image.name,
        "folder": str(image.folder),
        "languages": dict(manifest.languages),
        "size_bytes": image.size_bytes,
        "memory_bytes": manifest.memory_bytes,
        "disk_bytes": manifest.disk_bytes,
        "source": manifest.source,
        "created": manifest.created,
        "root_sha256": manifest.root_sha256,
        "kernel": manifest.kernel,
        "packages": [
            {"kind": one.kind, "name": one.name, "version": one.version, "licence": one.licence}
            for one in manifest.packages
        ],
    }


def _cells(image: VmImage) -> tuple[str, ...]:
    manifest = image.manifest
    sizes = [_size(size) for size in (image.size_bytes, manifest.memory_bytes, manifest.disk_bytes)]
    return (image.name, _languages(image), *sizes, manifest.source, manifest.created)


def _languages(image: VmImage) -> str:
    return ", ".join(f"{name} {version}" for name, version in image.manifest.languages.items())


def _size(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A build that is asked to end cleans up, as it does after Ctrl-C."""

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def shown(stream: TextIO) -> Iterator[Callable[[Stage], None]]:
    """A callback that shows the stages of a build on `stream`: a line each, redrawn while it runs on a terminal."""
    shower = _Shower(stream)
    try:
        yield shower.show
    finally:
        shower.close()


class _Shower:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._open = False
        self._drawn = ""

    def show(self, stage: Stage) -> None:
        if stage.done:
            self._draw(f"{stage.name:<34} {stage.seconds:6.1f} s", end="\n")
        elif self._terminal:
            self._draw(f"{stage.name:<34} {stage.seconds:6.0f} s", end="")

    def close(self) -> None:
        """Leave the line of a stage that did not come to its end."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()

    def _draw(self, line: str, end: str) -> None:
        if self._terminal and line == self._drawn and not end:
            return
        self._stream.write(f"\r{line}{end}" if self._terminal else f"{line}{end}")
        self._stream.flush()
        self._open, self._drawn = not end, line
