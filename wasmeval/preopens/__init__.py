"""Preopens: the folders of this machine that an evaluation mounts, served to a worker that can open nothing itself."""

from wasmeval.preopens.folders import OpenFolders

__all__ = ["OpenFolders"]
