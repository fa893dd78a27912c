"""Offer: what an operator, or an embedding program, lets evaluations have, and the check of what they ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wasmeval.errors import InvalidArgument
from wasmeval.grants import Folder, Grants, Mount, Tool
from wasmeval.inputs import check_name, shorten
from wasmeval.limits import Limits
from wasmeval.paths import check_files, check_pattern

if TYPE_CHECKING:
    from wasmeval.egress import Egress

MAX_TOOLS = 128
MAX_TOOL_NAME_BYTES = 256
MAX_OUTPUTS = 64
MAX_MOUNTS = 64
MAX_TOOL_TEXT_BYTES = 1 << 20
"""Names, signatures, parameters and docs of all tools of one evaluation together, in UTF-8."""

NODE_BYTES = 512
"""What a file or folder of the workspace takes beside its content, in the quota and about so in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """HTTP by `egress`, and folders by name. Nothing by default."""

    egress: Egress | None = None
    folders: Mapping[str, Folder] = field(default_factory=dict)

    def check(
        self,
        grants: Grants,
        limits: Limits,
        runtime: str,
        inputs: Collection[str],
        *,
        is_replay: bool = False,
    ) -> Grants:
        """What an evaluation gets of what it asks for. Raises InvalidArgument for what it can never have.
        `is_replay`: it sends no request, whatever its policy is."""
        check_files_fit(grants.files, limits)
        _check_outputs(grants.outputs)
        _check_tools(grants.tools, runtime, inputs)
        http = grants.http
        if http is not None and not is_replay:
            if self.egress is None:
                raise InvalidArgument(
                    "http", "no HTTP is offered here; leave it out, or have the operator allow it"
                )
            http = self.egress.check(http)
        return replace(grants, http=http, mounts=self._mounts(grants.mounts))

    async def load(self) -> None:
        """Load now what evaluations that use it would otherwise wait for."""
        if self.folders:
            import wasmeval.preopens  # noqa: F401
        if self.egress is not None:
            await self.egress.load()

    async def aclose(self) -> None:
        """End what it keeps open, on the loop where it was used."""
        if self.egress is not None:
            await self.egress.aclose()

    def folders_for(self, grants: Grants) -> dict[str, Folder]:
        """The folders that a checked evaluation mounts."""
        return {mount.name: self.folders[mount.name] for mount in grants.mounts}

    def _mounts(self, asked: tuple[Mount, ...]) -> tuple[Mount, ...]:
        if len(asked) > MAX_MOUNTS:
            raise InvalidArgument("mounts", f"{len(asked)} folders; mount at most {MAX_MOUNTS}")
        mounts = {}
        for index, mount in enumerate(asked):
            folder = self.folders.get(mount.name)
            if folder is None:
                known = ", ".join(sorted(self.folders)) or "none"
                raise InvalidArgument(
                    f"mounts[{index}]", f"no folder is named {shorten(mount.name)!r}; there is: {known}"
                )
            mounts[mount.name] = Mount(mount.name, folder.read_only)
        return tuple(mounts.values())


NOTHING = Offer()


def check_files_fit(files: Mapping[str, bytes], limits: Limits) -> None:
    """Raises InvalidArgument for files that a workspace with `limits` cannot hold."""
    most_bytes, most_files = limits.workspace_bytes or 0, limits.workspace_files or 0
    nodes = check_files("files", files, most_files)
    total = sum(map(len, files.values()))
    if total + NODE_BYTES * nodes > most_bytes:
        raise InvalidArgument(
            "files",
            f"{total} bytes, and {NODE_BYTES} for each of {nodes} files and folders, are more than "
            f"limits.workspace_bytes ({most_bytes}); raise it or send less",
        )


def _check_outputs(patterns: tuple[str, ...]) -> None:
    if len(patterns) > MAX_OUTPUTS:
        raise InvalidArgument("outputs", f"{len(patterns)} patterns; give at most {MAX_OUTPUTS}")
    for index, pattern in enumerate(patterns):
        check_pattern(f"outputs[{index}]", pattern)


def _check_tools(tools: tuple[Tool, ...], runtime: str, inputs: Collection[str]) -> None:
    if len(tools) > MAX_TOOLS:
        raise InvalidArgument("tools", f"{len(tools)} tools; offer at most {MAX_TOOLS}")
    seen: set[str] = set()
    size = 0
    for index, tool in enumerate(tools):
        where = f"tools[{index}].name"
        check_name(where, runtime, tool.name)
        if tool.name in seen or tool.name in inputs:
            other = "an input" if tool.name in inputs else "another tool"
            raise InvalidArgument(where, f"{tool.name!r} is the name of {other} too; rename one")
        if len(tool.name.encode()) > MAX_TOOL_NAME_BYTES:
            raise InvalidArgument(
                where, f"{len(tool.name.encode())} bytes; a name has at most {MAX_TOOL_NAME_BYTES}"
            )
        seen.add(tool.name)
        texts = (tool.name, tool.signature, tool.doc, *tool.parameters)
        size += sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in texts)
    if size > MAX_TOOL_TEXT_BYTES:
        raise InvalidArgument("tools", f"{size} bytes of description; {MAX_TOOL_TEXT_BYTES} are the most")
