"""HTTP as a socket: what is written to it is a request, which the host sends; what is read from it is the response.

The libraries above (`http.client`, `urllib.request`, `requests`) keep their own ideas of requests, redirects and
sessions; only the bytes between them and the network end here. TLS, names and addresses are the host's.
"""

import errno
import io
import json
import struct

import _wasmeval
import _wasmeval_calls as calls

_NUMBER, _READ = struct.Struct("<I"), struct.Struct("<II")
_READ_BYTES = 256 << 10
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"

# The host speaks for itself: of the connection, the length, the coding, the name in the URL.
_HOSTS_OWN = frozenset(
    b"accept-encoding connection content-length expect host keep-alive proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
_BODILESS = (204, 304)

_CONNECTION_ERRORS = {
    "connect": (ConnectionRefusedError, errno.ECONNREFUSED),
    "tls": (ConnectionError, errno.ECONNABORTED),
    "protocol": (ConnectionResetError, errno.ECONNRESET),
    "redirects": (OSError, errno.ELOOP),
    "gone": (ConnectionResetError, errno.ECONNRESET),
}

NOT_ALLOWED = "HTTP is not allowed for this evaluation"
NEED = f"network access: {NOT_ALLOWED}"
only_http = _wasmeval.refusal(
    OSError, (errno.ENOTSUP, "this runtime's sockets carry HTTP requests alone"), "sockets"
)


class Exchange:
    """One request and its response, between one socket and the host."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.secure = False
        self.seconds = None
        self._sent = bytearray()
        self._asked = False
        self._received = io.BytesIO()
        self._stream = 0
        self._late_error = None

    def send(self, data):
        """Takes a part of the request. With its last part the request goes out; raises what becomes of it."""
        if self._asked:
            raise BrokenPipeError(errno.EPIPE, "the connection carried its one request already")
        self._sent += data
        request = _read_request(self._sent)
        if request is not None:
            self._asked = True
            self._sent = bytearray()
            self._ask(*request)

    def receive(self, most):
        """At most so many bytes of the response; none at its end."""
        if self._late_error is not None:
            raise self._late_error
        if not self._asked:
            only_http()
        part = self._received.read(most)
        while not part and self._stream:
            part = self._refill(most)
        return part

    def close(self):
        if self._stream:
            calls.drop(self._stream)
            self._stream = 0

    def _refill(self, most):
        number = _begin(calls.READ, _READ.pack(self._stream, max(most, _READ_BYTES)))
        kind, outcome = calls.outcome(number)
        if kind != calls.DONE:
            self._stream = 0
            raise _failure(kind, outcome)
        if not outcome:
            self._stream = 0
        self._received = io.BytesIO(outcome)
        return self._received.read(most)

    def _ask(self, method, target, headers, body):
        head = {
            "method": method,
            "url": f"{'https' if self.secure else 'http'}://{self._authority()}{target}",
            "headers": headers,
            "redirect": "manual",
            "seconds": self.seconds,
        }
        encoded = json.dumps(head).encode()
        kind, outcome = calls.outcome(_begin(calls.HTTP, _NUMBER.pack(len(encoded)) + encoded + body))
        if kind == calls.DONE:
            self._answer(method, outcome)
            return
        error = _failure(kind, outcome)
        if not isinstance(error, TimeoutError):
            raise error
        # A server that is slow is met with when its answer is read.
        self._late_error = error

    def _authority(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def _answer(self, method, outcome):
        length = _NUMBER.unpack_from(outcome)[0]
        head = json.loads(outcome[4 : 4 + length])
        body = outcome[4 + length :]
        self._stream = head["stream"]
        bodiless = method == "HEAD" or head["status"] in _BODILESS
        lines = [f"HTTP/1.1 {head['status']} {head['reason']}", *_response_headers(head, bodiless, len(body))]
        text = "\r\n".join(lines).encode("latin-1", "replace") + _HEAD_END
        self._received = io.BytesIO(text if bodiless else text + body)


def _response_headers(head, bodiless, so_far):
    """The response's headers as they fit its body, which the host has decoded; the connection is for one response."""
    pairs = [
        (name, value) for name, value in head["headers"] if name.lower() not in ("connection", "keep-alive")
    ]
    names = {name.lower() for name, _ in pairs}
    dropped = {"transfer-encoding"}
    if "content-encoding" in names and not bodiless:
        dropped |= {"content-encoding", "content-length"}
    lines = [f"{name}: {value}" for name, value in pairs if name.lower() not in dropped]
    if not bodiless and not head["stream"] and ("content-length" in dropped or "content-length" not in names):
        lines.append(f"Content-Length: {so_far}")
    return [*lines, "Connection: close"]


def _begin(operation, body):
    try:
        return calls.begin(operation, body)
    except NotImplementedError:
        pass
    if not calls.allows_http():
        raise PermissionError(errno.EACCES, NOT_ALLOWED)
    raise OSError(errno.EMSGSIZE, f"the request is {len(body)} bytes, more than the host takes; send less")


def _failure(kind, outcome):
    told = json.loads(outcome)
    message = told["message"]
    if kind == calls.REFUSED:
        return PermissionError(errno.EACCES, message)
    if kind == calls.LIMIT:
        return TimeoutError(message) if told["limit"].endswith("seconds") else OSError(errno.EDQUOT, message)
    if told.get("type") == "timeout":
        return TimeoutError(message or "timed out")
    error, number = _CONNECTION_ERRORS.get(told.get("type"), (OSError, errno.EIO))
    return error(number, message)


# ---- reading what a client writes --------------------------------------------------------------------------------


def _read_request(sent):
    """Method, target, headers and body of a request that is complete; None while it is not."""
    end = sent.find(_HEAD_END)
    if end < 0:
        if len(sent) > 8 and not bytes(sent[:8]).split(b" ")[0].isalpha():
            only_http()
        return None
    first, *lines = bytes(sent[:end]).split(b"\r\n")
    method, target = _read_first_line(first)
    headers = [_read_header(line) for line in lines]
    framing = {name.lower(): value for name, value in headers}
    body = _read_body(sent, end + len(_HEAD_END), framing)
    if body is None:
        return None
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in headers
        if name.lower() not in _HOSTS_OWN
    ]
    return method, target, kept, body


def _read_first_line(line):
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not words[1].startswith((b"/", b"*")):
        only_http()
    return words[0].decode("latin-1"), "" if words[1] == b"*" else words[1].decode("latin-1")


def _read_header(line):
    name, colon, value = line.partition(b":")
    if not colon:
        only_http()
    return name, value.strip()


def _read_body(sent, start, framing):
    if framing.get(b"transfer-encoding", b"").lower() == b"chunked":
        return _read_chunks(bytes(sent[start:])) if sent.endswith(_LAST_CHUNK) else None
    length = int(framing.get(b"content-length", b"0"))
    return bytes(sent[start : start + length]) if len(sent) - start >= length else None


def _read_chunks(rest):
    body, at = [], 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        size = int(rest[at:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(body)
        at = end + 2
        if len(rest) < at + size + 2:
            return None
        body.append(rest[at : at + size])
        at += size + 2
    return None
