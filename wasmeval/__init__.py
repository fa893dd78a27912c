"""Evaluates Python and JavaScript snippets, each in a fresh, isolated WebAssembly instance.

    import wasmeval
    wasmeval.evaluate("sum(xs)", inputs={"xs": [1, 2, 3]}).value  # 6

`evaluate` and `Evaluator` run snippets in worker processes of this program's own; `Client` and `AsyncClient` call a
`wasmeval serve`. All share one set of methods, parameters and results. Names are loaded at first use, so that
`import wasmeval` costs next to nothing and a client never loads Wasmtime.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers take this name for true; importing it from typing would be most of this module's cost.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from wasmeval.arrays import Array
    from wasmeval.client import AsyncClient, Client
    from wasmeval.conversation import Conversation, InputWanted, Output, ToolCall, ToolCallCancelled
    from wasmeval.determinism import Deterministic, Receipt
    from wasmeval.egress import Credential, HttpCeiling
    from wasmeval.embedded import Evaluator, evaluate, replay
    from wasmeval.embedded_session import EmbeddedSession
    from wasmeval.errors import (
        Conflict,
        DeadlineExceeded,
        EvaluationError,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        ResourceExhausted,
        ServiceError,
        SessionLost,
        SetupError,
        SnapshotRefused,
        StoreDamaged,
        StoreUnavailable,
        Unavailable,
        WasmevalError,
    )
    from wasmeval.grants import Folder, HttpPolicy, HttpRule, HttpUse, Tool
    from wasmeval.limits import Limits, Usage
    from wasmeval.model import ErrorInfo, Evaluation, OutputFile, Result, RuntimeInfo, Status, Tier
    from wasmeval.recording import Recording, Replay
    from wasmeval.service_session import AsyncServiceSession, ServiceSession
    from wasmeval.session import Checkpoint, Durability, SessionInfo, SessionOptions
    from wasmeval.stores import open_store
    from wasmeval.streams import AsyncConversation
    from wasmeval.vm import VmSettings

__version__ = "0.1.0"

__all__ = [
    "Array",
    "AsyncClient",
    "AsyncConversation",
    "AsyncServiceSession",
    "Checkpoint",
    "Client",
    "Conflict",
    "Conversation",
    "Credential",
    "DeadlineExceeded",
    "Deterministic",
    "Durability",
    "EmbeddedSession",
    "ErrorInfo",
    "Evaluation",
    "EvaluationError",
    "Evaluator",
    "FailedPrecondition",
    "Folder",
    "HttpCeiling",
    "HttpPolicy",
    "HttpRule",
    "HttpUse",
    "InputWanted",
    "Internal",
    "InvalidArgument",
    "Limits",
    "NotFound",
    "Output",
    "OutputFile",
    "Receipt",
    "Recording",
    "Replay",
    "ResourceExhausted",
    "Result",
    "RuntimeInfo",
    "ServiceError",
    "ServiceSession",
    "SessionInfo",
    "SessionLost",
    "SessionOptions",
    "SetupError",
    "SnapshotRefused",
    "Status",
    "StoreDamaged",
    "StoreUnavailable",
    "Tier",
    "Tool",
    "ToolCall",
    "ToolCallCancelled",
    "Unavailable",
    "Usage",
    "VmSettings",
    "WasmevalError",
    "__version__",
    "evaluate",
    "open_store",
    "replay",
]

_HOMES = {
    "arrays": ("Array",),
    "client": ("AsyncClient", "Client"),
    "conversation": ("Conversation", "InputWanted", "Output", "ToolCall", "ToolCallCancelled"),
    "determinism": ("Deterministic", "Receipt"),
    "egress": ("Credential", "HttpCeiling"),
    "embedded": ("Evaluator", "evaluate", "replay"),
    "embedded_session": ("EmbeddedSession",),
    "errors": (
        "Conflict",
        "DeadlineExceeded",
        "EvaluationError",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "NotFound",
        "ResourceExhausted",
        "ServiceError",
        "SessionLost",
        "SetupError",
        "SnapshotRefused",
        "StoreDamaged",
        "StoreUnavailable",
        "Unavailable",
        "WasmevalError",
    ),
    "grants": ("Folder", "HttpPolicy", "HttpRule", "HttpUse", "Tool"),
    "limits": ("Limits", "Usage"),
    "model": ("ErrorInfo", "Evaluation", "OutputFile", "Result", "RuntimeInfo", "Status", "Tier"),
    "recording": ("Recording", "Replay"),
    "service_session": ("AsyncServiceSession", "ServiceSession"),
    "session": ("Checkpoint", "Durability", "SessionInfo", "SessionOptions"),
    "stores": ("open_store",),
    "streams": ("AsyncConversation",),
    "vm": ("VmSettings",),
}
_MODULE_OF = {name: f"wasmeval.{module}" for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:
    # Hidden from type checkers, for whom any misspelt name would be an object otherwise.
    def __getattr__(name: str) -> object:
        """Load a public name from its module and keep it (PEP 562)."""
        module = _MODULE_OF.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
