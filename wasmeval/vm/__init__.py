"""The microVM tier: evaluations that need a whole operating system, each in a virtual machine of its own.

A machine is booted once from an image (`images`, `building`) and cloned from memory (`golden`, `qemu`, `jail`); clones
wait for jobs (`lobby`), and each runs one (`task`), by an agent inside (`guest/agent.py`) that its host does not trust.
"""

from wasmeval.vm.settings import VmSettings
from wasmeval.vm.tier import VmTier

__all__ = ["VmSettings", "VmTier"]
