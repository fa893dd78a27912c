"""The way out for guests that may send HTTP requests: rules, checked addresses, lent credentials, counted bytes.

Runs in the front process. A guest's bytes and a server's are both treated as hostile.
"""

from wasmeval.egress.ceiling import Credential, HttpCeiling
from wasmeval.egress.egress import Egress
from wasmeval.egress.exchange import Exchange
from wasmeval.egress.failure import HttpFailure

__all__ = ["Credential", "Egress", "Exchange", "HttpCeiling", "HttpFailure"]
