"""The exceptions of wasmeval: whose fault it is, what survives, whether a retry is safe.

A snippet's failure is never an exception: it is a `Result`. These are raised for everything else.

    WasmevalError
    ├── InvalidArgument        the caller's: a request that can never work; also a ValueError
    ├── FailedPrecondition     the caller's: a message of a conversation that came out of order
    ├── EvaluationError        the snippet's, and only from Result.raise_for_status()
    ├── SetupError             the machine's: an image, a cache, a jail, a store or a library is not as it must be
    ├── SnapshotRefused        the store's or the key's: a snapshot is damaged, foreign or sealed with another key
    ├── Conflict               nobody's: another changed the record first; nothing was written, read it again
    ├── NotFound               the caller's: no blob has this key, perhaps no more; a retry gives the same answer
    ├── StoreUnavailable       the store's: not reachable, full or too slow; whether a change was made is not known
    │   └── StoreDamaged       the store's: what lies under one key is not what was written; no retry helps
    └── ServiceError           the service's own failure; no Result was produced
        ├── Unavailable        not reachable, shutting down or lost mid-call; a retry is safe but for effects
        ├── ResourceExhausted  full; nothing ran, a retry after `retry_after_seconds` is safe
        ├── DeadlineExceeded   the call's own time-out passed before a Result arrived; the guest was stopped
        ├── SessionLost        a live session's worker died; its checkpoints, and what was stored of it, survive
        └── Internal           a bug of ours or of the transport; the pool stays usable
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wasmeval.model import Result


class WasmevalError(Exception):
    """The root of everything this package raises."""


class InvalidArgument(WasmevalError, ValueError):
    """The request is wrong and cost nothing; sending it again gives the same answer.

    `field` names what is wrong as a path into the request (`code`, `limits.fuel`, `inputs.xs`, `evaluations[3].code`).
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description

    def __reduce__(self) -> tuple[type[InvalidArgument], tuple[str, str], dict[str, object]]:
        return type(self), (self.field, self.description), vars(self)


class FailedPrecondition(WasmevalError):
    """A message of a conversation came when another was expected; the conversation is over, the service is not."""


class EvaluationError(WasmevalError):
    """Raised by `Result.raise_for_status()` for every status but `ok`; carries the whole `result`."""

    def __init__(self, result: Result) -> None:
        detail = f"{result.error.type}: {result.error.message}" if result.error else "no detail"
        super().__init__(f"{result.status.value}: {detail}")
        self.result = result

    def __reduce__(self) -> tuple[type[EvaluationError], tuple[Result], dict[str, object]]:
        return type(self), (self.result,), vars(self)


class SetupError(WasmevalError):
    """This machine or installation cannot run guests safely; the message says what to do about it."""


class Conflict(WasmevalError):
    """The record is not as the caller last saw it: another made, changed or removed it first. Nothing was written.

    Nobody's fault. Sending the same again gives the same answer; `get` the record, judge it anew, then try.
    """


class NotFound(WasmevalError):
    """There is no such session, checkpoint or blob: it never was, or was removed since, or its life has ended. A
    session of another tenant is not there either. Everything else is as it was."""


class SnapshotRefused(WasmevalError):
    """A snapshot was not sealed with this key, is of something else, or is not whole. Nothing of it was used.

    The operator's to look into: somebody changed what lies in the store, or the key is not the one it was sealed with.
    """


class StoreUnavailable(WasmevalError):
    """The store's fault: it is not reachable, full, not allowed or too slow. The message names it, not its credentials.

    What was durable stays so. After `get`, `keys`, `put_blob`, `get_blob`, `remove_blob` and `blobs` a retry is safe.
    After `create`, `swap` and `remove` the change may have been made and only its answer lost: `get` the record to
    know, before anything else is tried.
    """


class StoreDamaged(StoreUnavailable):
    """What lies under this key is not what was written there: cut short, or changed by another program.

    A retry gives the same answer, until the key's file or object is restored or removed by hand. Other keys are whole.
    """


class ServiceError(WasmevalError):
    """The service failed, not the snippet."""


class Unavailable(ServiceError):
    """The service is not reachable, is draining, or was lost in the middle of the call.

    A snippet may have run then. A retry is safe unless it could have an effect outside its instance: send HTTP, write
    to a folder, call a tool. Then it is safe only when the message says that nothing ran, or that there was no
    connection.
    """


class ResourceExhausted(ServiceError):
    """The service is full. Nothing ran; a retry after `retry_after_seconds` is safe."""

    def __init__(self, message: str, retry_after_seconds: float = 0.1) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(ServiceError):
    """The call's own time-out passed before a Result arrived. The guest was stopped."""


class SessionLost(ServiceError):
    """The worker of a live session died. Of the session survives what was stored: its checkpoints, and with
    `durability="step"` everything that was answered. A retry has no point; restoring a checkpoint has. Of a session in
    a VM, whose interpreter or machine is gone, nothing survives; begin another."""


class Internal(ServiceError):
    """Something that should not happen, in the service or in the transport. The pool stays usable."""


def at_index(index: int, error: InvalidArgument) -> InvalidArgument:
    """The same error, of one evaluation of a batch."""
    return InvalidArgument(f"evaluations[{index}].{error.field}", error.description)
