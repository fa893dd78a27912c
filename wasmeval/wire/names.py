"""Names and bounds of the service's messages, the same for client and server."""

from __future__ import annotations

SERVICE = "wasmeval.v1.Evaluator"
EVALUATE = f"/{SERVICE}/Evaluate"
EVALUATE_BATCH = f"/{SERVICE}/EvaluateBatch"
CONVERSE = f"/{SERVICE}/Converse"
LIST_RUNTIMES = f"/{SERVICE}/ListRuntimes"

SESSIONS = "wasmeval.v1.Sessions"
CREATE_SESSION = f"/{SESSIONS}/Create"
STEP = f"/{SESSIONS}/Evaluate"
STEP_CONVERSE = f"/{SESSIONS}/Converse"
FORK_SESSION = f"/{SESSIONS}/Fork"
HIBERNATE_SESSION = f"/{SESSIONS}/Hibernate"
CLOSE_SESSION = f"/{SESSIONS}/Close"
GET_SESSION = f"/{SESSIONS}/Get"
LIST_SESSIONS = f"/{SESSIONS}/List"
MAKE_CHECKPOINT = f"/{SESSIONS}/MakeCheckpoint"
LIST_CHECKPOINTS = f"/{SESSIONS}/ListCheckpoints"
RESTORE_SESSION = f"/{SESSIONS}/Restore"

SESSION_KEY = "wasmeval-session"
"""Metadata of each call about one session: its id again, for load balancers, which read no messages. The service
itself does not look at it."""

REFUSED_KEY = "wasmeval-refused"
"""Trailing metadata of a refusal: nothing ran, so another replica may be asked whatever the call does."""

NOTHING_RAN = "; nothing ran"
"""How the message of such a refusal says so."""

MAX_REQUEST_BYTES = 16 << 20
"""One request message: the largest legal evaluation without files is 13 MiB: 8 of inputs, one of code, 4 of
transcript."""

MAX_REPLY_BYTES = 80 << 20
"""One reply message. The largest is 76 MiB: 8 of value, twice 8 of output, threefold, 16 of files and 4 of
transcript."""

MAX_UNARY_FILES_BYTES = 16 << 20
"""Files in one unary reply; more of them come in pieces."""

FILE_PIECE_BYTES = 1 << 20
"""What we send in one piece of a file."""
