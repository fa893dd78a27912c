"""An agent loop: a model writes code, the code calls three tools of ours, and the model sees what came of it.

    python docs/examples/agent_loop.py                      # workers of its own
    python docs/examples/agent_loop.py localhost:50051      # a running `wasmeval serve`

`model` stands for a language model: it gets what was said so far and answers with a snippet. The first one has a
mistake in it, as first ones do.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import wasmeval

DOCUMENTS = {
    "tea": "Green tea is steeped at 80 degrees for 2 minutes.",
    "coffee": "Filter coffee is brewed at 94 degrees for 4 minutes.",
}
STEPS: Iterator[str] = iter(
    [
        "titles = search('degrees')\nread(titles[0]).splitlines[0]",
        """\
import asyncio, re
titles = search("degrees")
async def read_all():
    return await asyncio.gather(*(read.aio(title) for title in titles))
minutes = {}
for title, text in zip(titles, asyncio.run(read_all())):
    minutes[title] = int(re.search(r"(\\d+) minutes", text)[1])
print("longest:", max(minutes, key=minutes.get))
remind(minutes=max(minutes.values()))
minutes
""",
    ]
)


def search(query: str, limit: int = 10) -> list[str]:
    """Titles of the documents that contain `query`."""
    return [title for title, text in DOCUMENTS.items() if query in text][:limit]


async def read(title: str) -> str:
    """The text of a document."""
    await asyncio.sleep(0.05)  # A database, say.
    return DOCUMENTS[title]


def remind(minutes: int) -> str:
    """Sets a timer for the user."""
    if not isinstance(minutes, int) or not 0 < minutes < 60:
        raise ValueError("minutes must be between 1 and 59")
    return f"a reminder in {minutes} minutes"


def model(conversation: list[str]) -> str:
    """What a language model would write next."""
    return next(STEPS)


def main(target: str | None) -> dict[str, int]:
    """Steps until a snippet ends well."""
    conversation = ["user: how long does each drink take? set a timer for the longest"]
    with wasmeval.Client(target) if target else wasmeval.Evaluator(workers=1) as sandbox:
        while True:
            result = sandbox.evaluate(
                model(conversation),
                tools={"search": search, "read": read, "remind": remind},
                on_output=lambda stream, text: print(f"[{stream}] {text}", end=""),
                limits=wasmeval.Limits(deadline_seconds=5, tool_calls=20),
            )
            if result.ok:
                print(f"value: {result.value}, {result.usage.tool_calls} calls of tools")
                return result.value
            assert result.error is not None
            print(f"failed: {result.error.type}: {result.error.message}")
            conversation.append(f"sandbox: {result.error.traceback}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
