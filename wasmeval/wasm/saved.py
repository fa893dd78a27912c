"""Saved: what a guest had of files at one moment: its writable trees, and what it had open.

Nothing of it is the guest's own any more: it may be given to any number of guests, one after the other, and each then
writes to its own. Bytes are shared until somebody writes over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wasmeval.wasm.descriptors import Descriptor, Descriptors
from wasmeval.wasm.mounts import HostNode
from wasmeval.wasm.nodes import MountPoint, Node
from wasmeval.wasm.workspace import Workspace


class Gone(Node):
    """In the place of what was open in a folder of the host's, which is mounted for one step: its number stays taken
    until the guest closes it."""

    __slots__ = ()


@dataclass(slots=True)
class Saved:
    """`twins` says which of the guest's nodes is which of ours, as long as the guest has changed nothing."""

    workspace: Workspace
    table: dict[int, Descriptor]
    twins: dict[Node, Node]

    @property
    def changes(self) -> int:
        """How often the trees had been changed; see Quota."""
        return self.workspace.quota.changes


def save(guest: Descriptors, last: Saved | None = None) -> Saved | None:
    """What `guest`, which rests, has of files; None when it has never looked at one. `last` is what it had before.

    What it has open in folders of the host's is closed.
    """
    if guest.workspace is None:
        return None
    _close_host_files(guest)
    table = guest.table
    if last is not None and last.changes == guest.workspace.quota.changes:
        workspace, twins = last.workspace, last.twins
    else:
        workspace, twins = guest.workspace.twin(_open_nodes(table))
    return Saved(workspace, _copy_table(table, twins), twins)


def give(saved: Saved, guest: Descriptors) -> dict[Node, Node]:
    """Let `guest`, which is new, have what was saved. Which of the saved nodes became which."""
    workspace, twins = saved.workspace.twin(_open_nodes(saved.table))
    guest.furnish(workspace, _copy_table(saved.table, twins, opens=True))
    return twins


def _open_nodes(table: Mapping[int, Descriptor]) -> Iterator[Node]:
    return (descriptor.node for descriptor in table.values() if descriptor.node.quota is not None)


def _copy_table(
    table: Mapping[int, Descriptor], twins: Mapping[Node, Node], *, opens: bool = False
) -> dict[int, Descriptor]:
    copied = {}
    for number, descriptor in table.items():
        # What is in no writable tree is the same for all: the library, the root.
        node = twins.get(descriptor.node, descriptor.node)
        copied[number] = copy = Descriptor(node, descriptor.rights, descriptor.inheriting, descriptor.flags)
        copy.position, copy.listing = descriptor.position, descriptor.listing
        if opens:
            node.opens += 1
    return copied


def _close_host_files(guest: Descriptors) -> None:
    for descriptor in guest.table.values():
        if isinstance(descriptor.node, HostNode | MountPoint):
            guest.close_node(descriptor)
            descriptor.node = Gone(0)
            descriptor.rights = descriptor.inheriting = 0
            descriptor.node.opens = 1
