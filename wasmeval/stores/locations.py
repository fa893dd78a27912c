"""Locations: the options in a store's URL. No message repeats a URL, for it may have a password in it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl

from wasmeval.errors import InvalidArgument


def options_of(url: SplitResult, known: frozenset[str]) -> Mapping[str, str]:
    """The options after the question mark, each given once. Raises InvalidArgument for one that is not `known`."""
    options: dict[str, str] = {}
    for name, value in parse_qsl(url.query, keep_blank_values=True):
        if name not in known:
            raise InvalidArgument(
                "store",
                f"{url.scheme} has no option {name[:80]!r}; it has {', '.join(sorted(known)) or 'none'}",
            )
        if name in options:
            raise InvalidArgument("store", f"the option {name!r} is given twice")
        options[name] = value
    if url.fragment:
        raise InvalidArgument("store", "a URL of a store has no '#'; in a password it is written %23")
    return options


def number_in(options: Mapping[str, str], name: str, default: float) -> float:
    """The option `name` as a number that is not negative. Raises InvalidArgument."""
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise InvalidArgument("store", f"the option {name!r} must be a number, at least 0")
    return value
