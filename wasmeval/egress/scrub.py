"""Scrubber: takes credentials out of what a server sends back."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from urllib.parse import quote

from wasmeval.egress.ceiling import LEAST_SECRET, Credential

# The longest way in which one character of a secret is found is six bytes: \u0041, &#x41;.
_WIDEST = 6

# Whatever may stand in a token or in an escape of one. Where a text is cut must not depend on the secret: a server that
# the guest controls could otherwise tell, from what is held back, how much of a guess is right.
_TOKEN = bytes(range(0x30, 0x3A)) + bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B)) + b"-._~+/=%\\&#;:"

_NAMED = {"&": b"&amp;", "<": b"&lt;", ">": b"&gt;", '"': b"&quot;", "'": b"&apos;"}


class Scrubber:
    """Replaces every secret of `credentials` by as many asterisks as its spelling had bytes, so that lengths stay true.

    Found are the secret itself, the parts and the base64 of a basic one, each also with any of its characters escaped
    as in a URL, in JSON or in HTML. Not found is what a server transforms in another way.
    """

    def __init__(self, credentials: Iterable[Credential]) -> None:
        needles = sorted(
            {n for credential in credentials for n in _needles(credential)}, key=len, reverse=True
        )
        self._pattern = re.compile(b"|".join(map(_spellings, needles))) if needles else None
        self._held = _WIDEST * max(map(len, needles), default=0) - 1
        self._token = _TOKEN + "".join(needles).encode("ascii")

    def __bool__(self) -> bool:
        return self._pattern is not None

    def text(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self.whole(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def whole(self, data: bytes) -> bytes:
        if self._pattern is None:
            return data
        return self._pattern.sub(lambda found: b"*" * len(found[0]), data)

    def stream(self) -> ScrubbedStream:
        return ScrubbedStream(self)

    def split(self, data: bytes) -> int:
        """Where `data` may be cut, when more follows, so that no secret is cut in two."""
        if self._pattern is None:
            return len(data)
        return max(len(data.rstrip(self._token)), len(data) - self._held)


class ScrubbedStream:
    """One body that comes in pieces: a secret that spans two of them is found too."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """What may be handed on; a token at the end is held back until it is over."""
        text = self._scrubber.whole(self._rest + data) if self._scrubber else data
        at = self._scrubber.split(text)
        self._rest = text[at:]
        return text[:at]

    def end(self) -> bytes:
        """What was held back, when nothing follows."""
        rest, self._rest = self._rest, b""
        return rest


def _needles(credential: Credential) -> Iterable[str]:
    yield credential.secret
    if credential.kind == "query":
        yield quote(
            credential.secret, safe=""
        )  # as it was sent, to be found also when that is escaped once more
    if credential.kind == "basic":
        yield base64.b64encode(credential.secret.encode("ascii")).decode("ascii").rstrip("=")
        yield from (part for part in credential.secret.partition(":")[::2] if len(part) >= LEAST_SECRET)


def _spellings(needle: str) -> bytes:
    """A pattern for `needle` with any of its characters escaped."""
    return b"".join(map(_spelling, needle))


def _spelling(char: str) -> bytes:
    code = ord(char)
    forms = {
        char.encode("ascii"), b"%%%02X" % code, b"%%%02x" % code, b"\\u%04X" % code, b"\\u%04x" % code,
        b"&#%d;" % code, b"&#x%x;" % code, b"&#x%X;" % code, html.escape(char).encode("ascii"),
    }  # fmt: skip
    if char in _NAMED:
        forms.add(_NAMED[char])
    if char in '"\\/':
        forms.add(b"\\" + char.encode("ascii"))
    if char == " ":
        forms.add(b"+")
    # The longest first: &amp; also begins with &.
    return b"(?:" + b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) + b")"
