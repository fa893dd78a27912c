"""Offering: the offer that a service's configuration describes; its secrets are read here, once."""

from __future__ import annotations

from collections.abc import Mapping

from wasmeval.config import CredentialConfig, HttpConfig, ServerConfig
from wasmeval.egress import Credential, Egress, HttpCeiling
from wasmeval.errors import InvalidArgument
from wasmeval.grants import Folder, HttpRule
from wasmeval.offer import Offer


def configured(config: ServerConfig, environ: Mapping[str, str]) -> Offer:
    """What `config` lets evaluations have. Raises InvalidArgument for a rule, network or secret that cannot be."""
    folders = {
        name: Folder(preopen.path, preopen.read_only, preopen.max_bytes, preopen.max_files)
        for name, preopen in config.preopen.items()
    }
    return Offer(_egress(config.http, environ) if config.http.rules else None, folders)


def _egress(config: HttpConfig, environ: Mapping[str, str]) -> Egress:
    try:
        ceiling = HttpCeiling(
            tuple(HttpRule(rule.host, rule.methods, rule.path_prefix, rule.schemes) for rule in config.rules),
            config.requests,
            config.request_bytes,
            config.response_bytes,
            config.seconds,
            config.redirects,
            config.private_networks,
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"http.{error.field}", error.description) from None
    credentials = {name: _credential(name, each, environ) for name, each in config.credentials.items()}
    return Egress(ceiling, credentials)


def _credential(name: str, config: CredentialConfig, environ: Mapping[str, str]) -> Credential:
    try:
        return Credential(config.kind, config.secret(environ), config.name, config.hosts)
    except InvalidArgument as error:
        raise InvalidArgument(f"http.credentials.{name}.{error.field}", error.description) from None
