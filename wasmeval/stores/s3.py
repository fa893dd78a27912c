"""S3Store: a bucket of S3, or of a server that speaks it and honours conditional writes.

    PREFIX/records/KEY    one object a record: a frame, see frames.py
    PREFIX/blobs/KEY      one object a blob
    PREFIX/probes/...     what an opening tries the conditions with, removed again

The version is the object's ETag, compared by the server (If-Match, If-None-Match). An ETag may be a digest of the
content; the frame has a version of its own in it, so the same data written twice has two.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.session import Session

from wasmeval.errors import InvalidArgument, SetupError, StoreUnavailable
from wasmeval.stores.frames import MalformedFrame, Piece, framed, parted
from wasmeval.stores.locations import number_in, options_of
from wasmeval.stores.repeats import repeated
from wasmeval.stores.store import Record, Store, is_key, new_version

T = TypeVar("T")

CONNECT_SECONDS = 3.0
TIMEOUT_SECONDS = 30.0
"""Between two pieces of an answer."""

_CONNECTIONS = 32
_OPTIONS = frozenset({"endpoint", "region", "profile", "addressing", "timeout"})
_MISSING = frozenset({"NoSuchKey", "404"})
# The condition does not hold, or another change of the same object was under way and may have won.
_REFUSED = frozenset({412, 409})


class S3Store(Store):
    """Durable as the bucket is: S3 answers when an object is stored in several places.

    Credentials are those of the AWS tools: environment, `~/.aws`, the machine's or the pod's role. Two requests for
    every removal, one for everything else; a request takes some 10 to 100 ms, and is paid for. Keys come in the order
    of the server, S3 itself sorts them. Of two removals of one version at the same time both may succeed.

    Raises SetupError when there are no credentials, they are refused, there is no such bucket, or conditions are not
    honoured, which one probe object shows; StoreUnavailable when the endpoint is not reachable.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        addressing: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.name = f"s3://{bucket}/{prefix}" + (f" at {_public(endpoint)}" if endpoint else "")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        config = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=timeout_seconds,
            max_pool_connections=_CONNECTIONS,
            # Its own repetitions would do a swap twice, and call the second a conflict.
            retries={"mode": "standard", "total_max_attempts": 1},
            s3={"addressing_style": addressing or ("path" if endpoint else "auto")},
            # Frames have their own; other servers than S3 know these checksums not or only some.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            session = Session(profile=profile)
            self._client: Any = session.create_client(
                "s3", region_name=region, endpoint_url=endpoint, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise SetupError(f"{self.name} cannot be opened: {error}") from error
        try:
            self._check_server()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, url: str) -> Self:
        """The store at `s3://BUCKET/PREFIX`, with the options of docs/stores.md."""
        parts = urlsplit(url)
        options = options_of(parts, _OPTIONS)
        if not parts.netloc or "@" in parts.netloc or ":" in parts.netloc:
            raise InvalidArgument(
                "store", "write s3://BUCKET/PREFIX, with credentials in the environment or ~/.aws"
            )
        return cls(
            parts.netloc,
            parts.path.strip("/"),
            endpoint=options.get("endpoint"),
            region=options.get("region"),
            profile=options.get("profile"),
            addressing=options.get("addressing"),
            timeout_seconds=max(0.1, number_in(options, "timeout", TIMEOUT_SECONDS)),
        )

    def _close(self) -> None:
        self._client.close()

    # --- records -------------------------------------------------------------------------------------------------

    def _get(self, key: str) -> Record | None:
        found = self._read("records", key)
        return found and Record(data=found[1], version=found[0])

    def _create(self, key: str, data: bytes) -> str:
        etag = self._put_if("records", key, data, IfNoneMatch="*")
        if etag is None:
            raise self._exists(key)
        return etag

    def _swap(self, key: str, data: bytes, version: str) -> str:
        etag = self._put_if("records", key, data, IfMatch=version)
        if etag is None:
            raise self._changed(key)
        return etag

    def _remove(self, key: str, version: str) -> None:
        # A removal of what is not there may count as done.
        if not self._is_there("records", key) or not self._delete_if("records", key, version):
            raise self._changed(key)

    def _keys(self, prefix: str) -> Iterator[str]:
        return self._listed("records", prefix)

    # --- blobs ---------------------------------------------------------------------------------------------------

    def _put_blob(self, key: str, data: Iterable[Piece]) -> None:
        content = _content(data)
        self._repeat(lambda: self._client.put_object(**self._object("blobs", key), **content))

    def _get_blob(self, key: str) -> bytes | None:
        found = self._read("blobs", key)
        return found and found[1]

    def _remove_blob(self, key: str) -> None:
        self._repeat(lambda: self._client.delete_object(**self._object("blobs", key)))

    def _blobs(self, prefix: str) -> Iterator[str]:
        return self._listed("blobs", prefix)

    # --- objects -------------------------------------------------------------------------------------------------

    def _object(self, kind: str, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{kind}/{key}"}

    def _read(self, kind: str, key: str) -> tuple[str, bytes] | None:
        """ETag and data."""

        def read() -> tuple[str, bytes] | None:
            try:
                answer = self._client.get_object(**self._object(kind, key))
            except ClientError as error:
                if _code(error) in _MISSING:
                    return None
                raise
            with contextlib.closing(answer["Body"]) as body:
                return answer["ETag"], body.read()

        found = self._repeat(read)
        try:
            return found and (found[0], parted(found[1])[1])
        except MalformedFrame as error:
            raise self._damaged(key, error) from error

    def _is_there(self, kind: str, key: str) -> bool:
        def look() -> bool:
            try:
                self._client.head_object(**self._object(kind, key))
            except ClientError as error:
                if _code(error) in _MISSING:
                    return False
                raise
            return True

        return self._repeat(look)

    def _put_if(self, kind: str, key: str, data: bytes, **condition: str) -> str | None:
        """The new ETag; None when the condition does not hold."""
        content = _content([data])
        answer = self._conditional(
            lambda: self._client.put_object(**self._object(kind, key), **content, **condition)
        )
        return None if answer is None else str(answer["ETag"])

    def _delete_if(self, kind: str, key: str, etag: str) -> bool:
        """Whether the object was removed."""
        answer = self._conditional(
            lambda: self._client.delete_object(**self._object(kind, key), IfMatch=etag)
        )
        return answer is not None

    def _conditional(self, call: Callable[[], Any]) -> Any:
        """The answer; None when the condition does not hold. Sent again only when it surely was not taken."""

        def attempt() -> Any:
            try:
                return call()
            except ClientError as error:
                if _status(error) in _REFUSED or _code(error) in _MISSING:
                    return None
                raise

        return self._explained(lambda: repeated(attempt, _is_untaken))

    def _listed(self, kind: str, prefix: str) -> Iterator[str]:
        start = f"{self._prefix}{kind}/"
        after: dict[str, str] = {}
        while True:
            page = self._page(start + prefix, after)
            for found in page.get("Contents", ()):
                if is_key(key := found["Key"].removeprefix(start)):
                    yield key
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, prefix: str, after: dict[str, str]) -> Any:
        return self._repeat(lambda: self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **after))

    def _check_server(self) -> None:
        """Try each condition with an object that nobody else has."""
        key, wrong = new_version(), f'"{new_version()}"'
        try:
            etag = self._put_if("probes", key, b"", IfNoneMatch="*")
            if etag is None:
                raise self._ignorant("If-None-Match on PutObject")
            try:
                if self._put_if("probes", key, b"", IfNoneMatch="*"):
                    raise self._ignorant("If-None-Match on PutObject")
                if self._put_if("probes", key, b"", IfMatch=wrong):
                    raise self._ignorant("If-Match on PutObject")
                if self._delete_if("probes", key, wrong):
                    raise self._ignorant("If-Match on DeleteObject")
                if not self._put_if("probes", key, b"", IfMatch=etag):
                    raise self._ignorant("If-Match on PutObject")
            finally:
                self._repeat(lambda: self._client.delete_object(**self._object("probes", key)))
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, NoCredentialsError):
                raise SetupError(
                    f"{self.name}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws"
                ) from error
            # 429 asks to come later; 501 is a server that knows no conditions, and says so.
            if isinstance(cause, ClientError) and (_status(cause) < 429 or _status(cause) == 501):
                raise SetupError(f"{self.name} refuses: {_code(cause)}; see docs/stores.md") from error
            raise

    def _ignorant(self, condition: str) -> SetupError:
        return SetupError(
            f"{self.name} does not honour {condition}, so two owners could overwrite each other; use a server that does"
        )

    def _repeat(self, call: Callable[[], T]) -> T:
        """What `call` returns, which is safe to do twice."""
        return self._explained(lambda: repeated(call, _is_passing))

    def _explained(self, call: Callable[[], T]) -> T:
        """What `call` returns, the server's failures explained. Its messages are not repeated: they may quote."""
        try:
            return call()
        except ClientError as error:
            raise StoreUnavailable(
                f"{self.name}: {_code(error)} ({_status(error)}); get the record again to know whether it was changed"
            ) from error
        except (BotoCoreError, OSError, ValueError) as error:
            raise StoreUnavailable(
                f"{self.name}: {type(error).__name__}; get the record again to know whether it was changed"
            ) from error


def _content(data: Iterable[Piece]) -> dict[str, bytes | str]:
    """What PutObject is given of a body. With a digest, so that the half of one is refused, which not every server
    does by its length."""
    body = framed(new_version(), data)
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"Body": body, "ContentMD5": base64.b64encode(digest).decode()}


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "unknown"))[:80]


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_untaken(error: Exception) -> bool:
    """Whether the request surely was not carried out: no connection, or asked to come later."""
    if isinstance(error, ClientError):
        return _code(error) == "SlowDown"
    return isinstance(error, EndpointConnectionError | ConnectTimeoutError)


def _is_passing(error: Exception) -> bool:
    """Whether another try may go better."""
    if isinstance(error, ClientError):
        return _status(error) >= 500
    return isinstance(error, HTTPClientError | IncompleteReadError | OSError)


def _public(endpoint: str) -> str:
    """`endpoint`, when it is an address and nothing else, as it is."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidArgument(
            "store",
            "the endpoint must be http:// or https:// and a host; credentials belong in the environment or ~/.aws",
        )
    return endpoint
