"""RedisStore: one Redis or Valkey server, shared by machines.

    PREFIX records        sorted set of the records' keys, all with score 0
    PREFIX record:KEY     string: a frame, see frames.py
    PREFIX blobs          sorted set of the blobs' keys
    PREFIX blob:KEY       string: a frame

A script compares and replaces a record and keeps the set in step: Redis runs it whole, with nothing in between. The
sets make a sorted listing possible in pages, without a walk over everything else that the server holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from wasmeval.errors import InvalidArgument, SetupError, StoreUnavailable
from wasmeval.stores.frames import (
    HEADER_BYTES,
    VERSION_SPAN,
    MalformedFrame,
    Piece,
    framed,
    header_of,
    parted,
)
from wasmeval.stores.locations import number_in, options_of
from wasmeval.stores.repeats import repeated
from wasmeval.stores.store import Record, Store, new_version

T = TypeVar("T")

CONNECT_SECONDS = 2.0
TIMEOUT_SECONDS = 10.0
"""For one answer, or for one blob to be sent. Unmeasured: 500 MB take 4 s at 1 Gbit/s."""

_PAGE = 1000
_OPTIONS = frozenset(
    {
        "prefix",
        "wait_replicas",
        "timeout",
        "password_file",
        "db",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
    }
)
_PASSED_ON = ("db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

# The first that fits: some are kinds of a later one.
_REASONS: dict[type[Exception], str] = {
    redis.exceptions.TimeoutError: "it did not answer in time",
    redis.exceptions.BusyLoadingError: "it is still loading its data",
    redis.exceptions.OutOfMemoryError: "its memory is full (maxmemory)",
    redis.exceptions.ReadOnlyError: "it is a replica, and takes no changes",
    redis.exceptions.NoPermissionError: "its ACL does not allow what is needed",
    redis.exceptions.ConnectionError: "it is not reachable, or the connection was lost",
}

_UNCHANGED = b"unchanged"

_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 'unchanged' end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
"""
_VERSION = f"redis.call('GETRANGE', KEYS[1], {VERSION_SPAN[0]}, {VERSION_SPAN[1]})"
_CHECK = f"if {_VERSION} ~= ARGV[3] then return 'unchanged' end"
_SWAP = f"""
{_CHECK}
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_REMOVE = f"""
{_CHECK}
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""


class RedisStore(Store):
    """As durable as the server is configured: with `appendonly yes` and `appendfsync always` a change is on its disk
    when the method returns; with `everysec` a crash loses up to a second of them; without, all since the last dump.

    `wait_replicas`: so many replicas must have each change before its method returns (WAIT); fewer within
    `timeout_seconds` / 2 is StoreUnavailable, and the change is made all the same. It narrows what a failover loses, it
    does not close it: a replica that lacks the change may still be promoted. Not for Redis Cluster.

    `blobs` also gives the key of a blob whose putting or removal was interrupted.

    Raises SetupError when the server refuses the credentials or evicts keys, StoreUnavailable when it is not reachable.
    """

    # One string of Redis has at most 512 MB (proto-max-bulk-len).
    most_blob_bytes: ClassVar[int] = (512 << 20) - HEADER_BYTES

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        prefix: str = "wasmeval:",
        wait_replicas: int = 0,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.name = _public(url)
        self._prefix = prefix
        self._wait_replicas = wait_replicas
        self._wait_milliseconds = max(1, int(timeout_seconds * 500))
        given: dict[str, Any] = {} if password is None else {"password": password}
        if not url.startswith("unix:"):
            given["socket_keepalive"] = True
        try:
            # Its own repetitions would do a swap twice, and call the second a conflict.
            self._client: Any = redis.Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=timeout_seconds,
                **given,
            )
        except ValueError:
            raise InvalidArgument("store", "not a URL of a Redis server; see docs/stores.md") from None
        try:
            self._check_server()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at `redis://`, `rediss://` or `unix://`, with the options of docs/stores.md.

        The password is that of the URL, else of `password_file`, else of `REDISCLI_AUTH`, as for redis-cli.
        """
        parts = urlsplit(url)
        options = options_of(parts, _OPTIONS)
        query = urlencode({name: options[name] for name in _PASSED_ON if name in options}, quote_via=quote)
        return cls(
            # Not geturl: it knows no `//` of unix.
            f"{parts.scheme}://{parts.netloc}{parts.path}?{query}",
            password=_password(options.get("password_file")),
            prefix=options.get("prefix", "wasmeval:"),
            wait_replicas=int(number_in(options, "wait_replicas", 0)),
            timeout_seconds=max(0.1, number_in(options, "timeout", TIMEOUT_SECONDS)),
        )

    def _close(self) -> None:
        self._client.close()

    # --- records -------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> Record | None:
        frame = self._repeat(lambda: self._client.get(self._named("record", key)))
        if frame is None:
            return None
        version, data = self._parted(key, frame)
        return Record(data, version)

    def _create(self, key: str, data: bytes) -> str:
        version = new_version()
        if not self._change(_CREATE, key, header_of(version, data) + data):
            raise self._exists(key)
        return version

    def _swap(self, key: str, data: bytes, version: str) -> str:
        new = new_version()
        if not self._change(_SWAP, key, header_of(new, data) + data, version):
            raise self._changed(key)
        return new

    def _remove(self, key: str, version: str) -> None:
        if not self._change(_REMOVE, key, b"", version):
            raise self._changed(key)

    def _keys(self, prefix: str) -> Iterator[str]:
        return self._listed("records", prefix)

    def _change(self, script: str, key: str, *arguments: bytes | str) -> bool:
        """Whether `script` changed the record. Sent once, whatever happens."""

        def send(pipe: Any) -> None:
            # Not by digest: a server that was started anew or took over does not know it yet.
            pipe.eval(script, 2, self._named("record", key), self._prefix + "records", key, *arguments)

        return self._once(lambda: self._sent(send)) != _UNCHANGED

    # --- blobs ---------------------------------------------------------------------------------------------------

    def _put_blob(self, key: str, data: Iterable[Piece]) -> None:
        frame = framed(new_version(), data)

        def send(pipe: Any) -> None:
            # Listed first, and below for longest: what an interruption leaves is still found, and can be removed.
            pipe.zadd(self._prefix + "blobs", {key: 0})
            pipe.set(self._named("blob", key), frame)

        self._repeat(lambda: self._sent(send))

    def _get_blob(self, key: str) -> bytes | None:
        frame = self._repeat(lambda: self._client.get(self._named("blob", key)))
        return None if frame is None else self._parted(key, frame)[1]

    def _remove_blob(self, key: str) -> None:
        def send(pipe: Any) -> None:
            pipe.delete(self._named("blob", key))
            pipe.zrem(self._prefix + "blobs", key)

        self._repeat(lambda: self._sent(send))

    def _blobs(self, prefix: str) -> Iterator[str]:
        return self._listed("blobs", prefix)

    # --- the server ----------------------------------------------------------------------------------------------

    def _named(self, kind: str, key: str) -> str:
        return f"{self._prefix}{kind}:{key}"

    def _parted(self, key: str, frame: bytes) -> tuple[str, bytes]:
        try:
            return parted(frame)
        except MalformedFrame as error:
            raise self._damaged(key, error) from error

    def _sent(self, send: Callable[[Any], None]) -> object:
        """The first answer to what `send` puts into a pipeline, when enough replicas have it too."""
        with self._client.pipeline(transaction=False) as pipe:
            send(pipe)
            if not self._wait_replicas:
                return pipe.execute()[0]
            # On the same connection: WAIT is about what this connection wrote.
            pipe.execute_command("WAIT", self._wait_replicas, self._wait_milliseconds)
            first, *_, replicas = pipe.execute()
        # Nobody needs to have what did not happen.
        return first if first == _UNCHANGED else self._confirmed(first, replicas)

    def _confirmed(self, answer: object, replicas: int) -> object:
        if replicas < self._wait_replicas:
            raise StoreUnavailable(
                f"{self.name}: {replicas} of {self._wait_replicas} replicas have the change, which was made; "
                f"get the record again before anything else"
            )
        return answer

    def _listed(self, index: str, prefix: str) -> Iterator[str]:
        # `~` comes after every character of a key.
        low, high = (f"[{prefix}", f"({prefix}~") if prefix else ("-", "+")
        while True:
            page = self._page(index, low, high)
            for name in page:
                yield name.decode()
            if len(page) < _PAGE:
                return
            low = f"({page[-1].decode()}"

    def _page(self, index: str, low: str, high: str) -> list[bytes]:
        return self._repeat(
            lambda: list(self._client.zrangebylex(self._prefix + index, low, high, start=0, num=_PAGE))
        )

    def _check_server(self) -> None:
        try:
            memory = self._once(lambda: self._client.info("memory"), opening=True)
        except StoreUnavailable as error:
            # Not allowed to ask: then it is the operator's word.
            if isinstance(error.__cause__, redis.exceptions.NoPermissionError):
                self._once(self._client.ping, opening=True)
                return
            raise
        policy = str(memory.get("maxmemory_policy", ""))
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            raise SetupError(f"{self.name} evicts keys ({policy}); set maxmemory-policy to noeviction")

    def _repeat(self, call: Callable[[], T]) -> T:
        """What `call` returns, which is safe to do twice."""
        return self._once(lambda: repeated(call, _is_passing))

    def _once(self, call: Callable[[], T], opening: bool = False) -> T:
        """What `call` returns, the server's failures explained. Its messages are not repeated: they may quote."""
        try:
            return call()
        except redis.exceptions.AuthenticationError as error:
            if opening:
                raise SetupError(f"{self.name} refuses the credentials") from error
            raise StoreUnavailable(f"{self.name} refuses the credentials") from error
        except redis.exceptions.RedisError as error:
            raise StoreUnavailable(
                f"{self.name}: {_reason(error)}; get the record again to know whether it was changed"
            ) from error


def _is_passing(error: Exception) -> bool:
    """Whether another try may go better: the connection was lost or the server is still loading."""
    return isinstance(error, redis.exceptions.ConnectionError) and not isinstance(
        error, redis.exceptions.AuthenticationError
    )


def _reason(error: redis.exceptions.RedisError) -> str:
    for kind, text in _REASONS.items():
        if isinstance(error, kind):
            return text
    return f"it failed ({type(error).__name__})"


def _password(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("REDISCLI_AUTH") or None
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise SetupError(f"the password of the store cannot be read from {file}: {error}") from None


def _public(url: str) -> str:
    """`url` without user, password and options."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{unquote(parts.path)}"
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or "localhost"
        return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"
    except ValueError:
        raise InvalidArgument("store", "not a URL of a Redis server; see docs/stores.md") from None
