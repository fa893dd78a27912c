"""Stands for the package `certifi`: certificates are checked by the host, with the host's own authorities."""

from pathlib import Path as _Path

__all__ = ["contents", "where"]
__version__ = "2026.1.1"


def where():
    """The path of a bundle in which there is nothing: `requests` wants it to exist."""
    return str(_Path(__file__).with_name("cacert.pem"))


def contents():
    return _Path(where()).read_text()
