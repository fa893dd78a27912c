"""Residing: what a service keeps as its configuration describes it: sessions, receipts, answers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from typing import NamedTuple

from wasmeval.answers import Answers
from wasmeval.config import ServerConfig, SessionsConfig
from wasmeval.receipts import Notary
from wasmeval.residence import Places, Residence
from wasmeval.runtimes import Catalogue
from wasmeval.sessions import Keeper, Sealer, SessionSettings
from wasmeval.stores import Store
from wasmeval.storing import key_of
from wasmeval.wasm.installation import VERSION

logger = logging.getLogger(__name__)

_SWEEP_SECONDS = 3600.0


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
    key = key_of(config.sessions, environ)
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
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    keeper = Keeper(store, sealer, images, session_settings(config), notary=notary, owner=owner)
    return Residence(places, keeper)


def session_settings(config: SessionsConfig) -> SessionSettings:
    """What sessions may be."""
    return SessionSettings(
        idle_seconds=config.idle_seconds,
        most_idle_seconds=config.most_idle_seconds,
        life_seconds=config.life_seconds,
        most_life_seconds=config.most_life_seconds,
        most_live=config.most_live,
        most_live_bytes=config.most_live_bytes,
        most_checkpoints=config.most_checkpoints,
        lease_seconds=config.lease_seconds,
    )
