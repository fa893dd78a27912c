"""`wasmeval serve`: run the gRPC service until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
from functools import partial
from pathlib import Path

from wasmeval.cli import codes
from wasmeval.cli.progress import compile_images
from wasmeval.config import load
from wasmeval.heap import keep_freed_memory
from wasmeval.server import allowed, serve


def run(arguments: argparse.Namespace) -> int:
    """Serve with what the command line, the environment and the file say; 0 after a graceful stop."""
    file = arguments.config or os.environ.get("WASMEVAL_CONFIG")
    # A flag that is not given leaves the say to the environment and the file.
    overrides = {
        "listen": arguments.listen,
        "workers": arguments.workers,
        "require_jail": arguments.require_jail or None,
        "insecure": arguments.insecure or None,
    }
    config = load(Path(file) if file else None, overrides=overrides)
    # What can never work is said before seconds are spent on the images.
    allowed(config.listen, insecure=config.insecure)
    compile_images(config.cache_dir)
    keep_freed_memory()
    asyncio.run(serve(config, announce=partial(print, flush=True)))
    return codes.OK
