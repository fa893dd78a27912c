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
    from wasmeval.client import AsyncClient, Client
    from wasmeval.embedded import Evaluator, evaluate
    from wasmeval.errors import (
        DeadlineExceeded,
        EvaluationError,
        Internal,
        InvalidArgument,
        ResourceExhausted,
        ServiceError,
        SetupError,
        Unavailable,
        WasmevalError,
    )
    from wasmeval.limits import Limits, Usage
    from wasmeval.model import ErrorInfo, Evaluation, Result, RuntimeInfo, Status

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "ErrorInfo",
    "Evaluation",
    "EvaluationError",
    "Evaluator",
    "Internal",
    "InvalidArgument",
    "Limits",
    "ResourceExhausted",
    "Result",
    "RuntimeInfo",
    "ServiceError",
    "SetupError",
    "Status",
    "Unavailable",
    "Usage",
    "WasmevalError",
    "__version__",
    "evaluate",
]

_HOMES = {
    "client": ("AsyncClient", "Client"),
    "embedded": ("Evaluator", "evaluate"),
    "errors": (
        "DeadlineExceeded",
        "EvaluationError",
        "Internal",
        "InvalidArgument",
        "ResourceExhausted",
        "ServiceError",
        "SetupError",
        "Unavailable",
        "WasmevalError",
    ),
    "limits": ("Limits", "Usage"),
    "model": ("ErrorInfo", "Evaluation", "Result", "RuntimeInfo", "Status"),
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
