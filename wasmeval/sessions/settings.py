"""SessionSettings: what sessions may be, by default and at most."""

from __future__ import annotations

from dataclasses import dataclass, replace

from wasmeval.session import SessionOptions


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """`most_live`: sessions that are in workers at once; one more puts the one to sleep that was left alone longest.
    `most_checkpoints`: of one session."""

    idle_seconds: float = 300.0
    most_idle_seconds: float = 86_400.0
    life_seconds: float = 86_400.0
    most_life_seconds: float = 30 * 86_400.0
    most_total_fuel: int = 1 << 62
    most_live: int = 256
    most_live_bytes: int = 1 << 30
    """What live sessions may take in workers together; beyond, those that were left alone longest are put to sleep."""
    most_state_bytes: int = 1 << 30
    """What states may take in this process together, on their way from workers to the store; beyond, they wait for one
    another."""
    most_checkpoints: int = 64
    lease_seconds: float = 15.0
    """For so long after it was last heard of a replica has its sessions for itself."""
    linger_seconds: float = 2.0
    """And for so long after a step when every step is stored: then another one may go on with the session."""

    orphan_seconds: float = 3600.0
    """A blob that no record has named for so long is removed; see sessions/orphans.py."""

    def apply(self, options: SessionOptions) -> SessionOptions:
        """The options without gaps that a session gets when its caller asks for `options`."""
        return replace(
            options,
            total_fuel=min(options.total_fuel or self.most_total_fuel, self.most_total_fuel),
            idle_seconds=min(options.idle_seconds or self.idle_seconds, self.most_idle_seconds),
            life_seconds=min(options.life_seconds or self.life_seconds, self.most_life_seconds),
        )
