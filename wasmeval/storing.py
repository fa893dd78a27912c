"""Storing: the store that a configuration names, and the key that what lies there is sealed with."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from wasmeval.config import SessionsConfig
from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.stores import Store, open_store

_KEY_BYTES = 32


def opened(config: SessionsConfig, environ: Mapping[str, str]) -> Store:
    """The store that `config` names; by default a folder of this user's."""
    if config.store:
        return open_store(config.store)
    home = _home(environ)
    try:
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"sessions cannot sleep in {home}: {error.strerror}; set sessions.store (WASMEVAL_SESSIONS_STORE) to "
            "memory:, or to a store"
        ) from None
    return open_store(f"dir:{home}")


def own_store(environ: Mapping[str, str]) -> tuple[Store, bytes]:
    """The folder in which this user's sessions sleep, and the key that their snapshots are sealed with."""
    config = SessionsConfig()
    return opened(config, environ), key_of(config, environ)


def _home(environ: Mapping[str, str]) -> Path:
    """Where this user's programs keep what they want to find again."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state).absolute() / "wasmeval" / "sessions"


def key_of(config: SessionsConfig, environ: Mapping[str, str]) -> bytes:
    """The operator's key. Raises InvalidArgument for one that is missing or too short."""
    if config.key_file is not None:
        try:
            key = config.key_file.read_bytes().strip()
        except OSError as error:
            raise InvalidArgument(
                "sessions.key_file", f"cannot read {config.key_file}: {error.strerror}"
            ) from None
        if len(key) < 16:
            raise InvalidArgument(
                "sessions.key_file", f"{config.key_file} has {len(key)} bytes; 16 or more are a key"
            )
        return key
    if config.store.startswith("memory:"):
        return secrets.token_bytes(_KEY_BYTES)
    if config.store:
        raise InvalidArgument(
            "sessions.key_file",
            "is needed with a store of your own: a file with 32 random bytes, the same for all replicas",
        )
    return _own_key(_home(environ).with_name("snapshot.key"))


def _own_key(path: Path) -> bytes:
    """The key beside the default store, made at first use; nobody else can read it."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as error:
        raise SetupError(
            f"cannot make {path}: {error.strerror}; set sessions.store to memory:, or to a store"
        ) from None
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise SetupError(
            f"{path} is no key: it has {len(key)} bytes; remove it, and what was stored with it is lost"
        )
    return key
