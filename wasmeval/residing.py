"""Residing: what a service keeps as its configuration describes it: its store, its key, sessions, receipts, answers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from wasmeval.answers import Answers
from wasmeval.config import ServerConfig, SessionsConfig
from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.receipts import Notary
from wasmeval.residence import Places, Residence
from wasmeval.runtimes import Catalogue
from wasmeval.sessions import Keeper, Sealer, SessionSettings
from wasmeval.stores import Store, open_store
from wasmeval.wasm.installation import VERSION

logger = logging.getLogger(__name__)

_KEY_BYTES = 32
_SWEEP_SECONDS = 3600.0


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
    return opened(config, environ), _key(config, environ)


class Home(NamedTuple):
    """What a service keeps in its store, and seals with its key."""

    residence: Residence
    notary: Notary
    answers: Answers

    async def watch(self) -> None:
        """Look after the sessions, and sweep answers that are too old; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.residence.watch())
            group.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.answers.sweep)
            except Exception as error:
                # Whatever it is: sessions are looked after beside this.
                logger.warning("old answers could not be removed: %s", type(error).__name__)
            await asyncio.sleep(_SWEEP_SECONDS)


def home(
    config: ServerConfig, environ: Mapping[str, str], store: Store, catalogue: Catalogue, places: Places
) -> Home:
    """The sessions in `store` and in `places`, its receipts and answers. Raises InvalidArgument for a key that is
    missing or too short."""
    key = _key(config.sessions, environ)
    sealer = Sealer(key)
    images = {runtime.name: runtime.image_sha256 for runtime in catalogue.runtimes}
    notary = Notary(key, images, VERSION)
    answers = Answers(store, sealer, notary, seconds=config.cache.seconds, most_bytes=config.cache.bytes)
    return Home(_residence(config.sessions, sealer, notary, images, store, places), notary, answers)


def _residence(
    config: SessionsConfig,
    sealer: Sealer,
    notary: Notary,
    images: Mapping[str, str],
    store: Store,
    places: Places,
) -> Residence:
    settings = SessionSettings(
        idle_seconds=config.idle_seconds,
        most_idle_seconds=config.most_idle_seconds,
        life_seconds=config.life_seconds,
        most_life_seconds=config.most_life_seconds,
        most_live=config.most_live,
        most_live_bytes=config.most_live_bytes,
        most_checkpoints=config.most_checkpoints,
        lease_seconds=config.lease_seconds,
    )
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    keeper = Keeper(store, sealer, images, settings, notary=notary, owner=owner)
    return Residence(places, keeper)


def _home(environ: Mapping[str, str]) -> Path:
    """Where this user's programs keep what they want to find again."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state).absolute() / "wasmeval" / "sessions"


def _key(config: SessionsConfig, environ: Mapping[str, str]) -> bytes:
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
