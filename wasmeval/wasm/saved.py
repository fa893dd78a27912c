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
    """The trees, and the table of descriptors into them."""

    workspace: Workspace
    table: dict[int, Descriptor]


class Link:
    """What ties one guest to what was last saved of it: which of its nodes is which of the saved ones. While the guest
    changes nothing of its trees, they need not be copied again."""

    __slots__ = ("_saved", "_twins")

    def __init__(self) -> None:
        self._saved: Saved | None = None
        self._twins: dict[Node, Node] = {}

    def save(self, guest: Descriptors) -> Saved | None:
        """What `guest`, which rests, has of files; None when it has never looked at one.

        What it has open in folders of the host's is closed.
        """
        guest.settle()
        if guest.workspace is None:
            return None
        _close_host_files(guest)
        table, last = guest.table, self._saved
        # A number that was given to nothing counts too: the next one is another.
        if (
            last is not None
            and last.workspace.quota.changes == guest.workspace.quota.changes
            and last.workspace.last_number == guest.workspace.last_number
        ):
            workspace = last.workspace
        else:
            workspace, self._twins = guest.workspace.twin(_open_nodes(table))
        self._saved = Saved(workspace, _copy_table(table, self._twins))
        return self._saved

    def give(self, saved: Saved, guest: Descriptors) -> None:
        """Let `guest`, which is new, have what was saved."""
        workspace, twins = saved.workspace.twin(_open_nodes(saved.table))
        guest.furnish(workspace, _copy_table(saved.table, twins, opens=True))
        self._saved, self._twins = saved, {mine: its for its, mine in twins.items()}


def _open_nodes(table: Mapping[int, Descriptor]) -> Iterator[Node]:
    return (descriptor.node for descriptor in table.values() if descriptor.node.quota is not None)


def _copy_table(
    table: Mapping[int, Descriptor], twins: Mapping[Node, Node], *, opens: bool = False
) -> dict[int, Descriptor]:
    copied = {}
    for number, descriptor in table.items():
        # What is in the library is the same for all.
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
