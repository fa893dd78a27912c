"""Build: the interpreter images, from pinned sources to the files of the package.

    python -m runtimes.build                        # all, doing only what has changed
    python -m runtimes.build python --stage link    # one image up to a stage
    python -m runtimes.build python --train         # take Python's profile anew, then build
    python -m runtimes.build --list                 # the stages there are

What a stage has done stands below `runtimes/.build`; remove that folder to begin from nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from runtimes import toolchain
from runtimes.javascript import recipe as javascript
from runtimes.python import recipe as python
from runtimes.stages import Stage, run_stages
from runtimes.typescript import recipe as typescript


def _javascript_stages() -> list[Stage]:
    """One stage: the whole image takes a minute or two."""
    inputs = (javascript.HERE, toolchain.LOCK.read_text())
    return [
        Stage(
            "image",
            lambda: print(javascript.build(), flush=True),
            inputs,
            (),
            (javascript.IMAGES / "manifest.json",),
        )
    ]


def _typescript_stages() -> list[Stage]:
    """One stage as well: what takes its minutes is the optimiser."""
    inputs = (typescript.HERE, toolchain.LOCK.read_text())
    made = (typescript.IMAGES / "manifest.json",)
    return [Stage("image", lambda: print(typescript.build(), flush=True), inputs, (), made)]


RECIPES: dict[str, Callable[[], list[Stage]]] = {
    "python": python.stages,
    "javascript": _javascript_stages,
    "typescript": _typescript_stages,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", choices=[*RECIPES, "all"], default="all")
    parser.add_argument("--stage", help="only this stage and what it needs")
    parser.add_argument(
        "--force", action="store_true", help="do the stages again even where nothing has changed"
    )
    parser.add_argument(
        "--train", action="store_true", help="take the profile of the Python image anew first"
    )
    parser.add_argument("--list", action="store_true", help="name the stages and do nothing")
    given = parser.parse_args()
    for name, recipe in RECIPES.items():
        if given.image not in (name, "all"):
            continue
        if given.list:
            print(f"{name}: {' '.join(stage.name for stage in recipe())}")
            continue
        stamps = toolchain.BUILD / "stamps" / name
        if given.train and name == "python":
            run_stages(name, python.stages(train=True), stamps)
        run_stages(name, recipe(), stamps, only=given.stage, force=given.force)


if __name__ == "__main__":
    main()
