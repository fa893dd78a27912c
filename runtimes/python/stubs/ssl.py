"""Stands for `ssl`: TLS is spoken by the host, which checks every certificate with its own authorities.

A context can be made and set up as usual, and a socket that it wraps sends its request as https. What a context is told
about certificates and versions changes nothing: none can be left unchecked.
"""

import errno as _errno
import os as _os
import socket as _socket
from collections import namedtuple as _namedtuple
from enum import IntEnum as _IntEnum
from enum import IntFlag as _IntFlag

import _wasmeval

# Nothing of OpenSSL is here; libraries ask for at least this version.
OPENSSL_VERSION = "OpenSSL 3.0.0 (the host's TLS stands for it)"
OPENSSL_VERSION_INFO = (3, 0, 0, 0, 0)
OPENSSL_VERSION_NUMBER = 0x30000000

HAS_SNI = HAS_ALPN = HAS_ECDH = HAS_TLSv1_2 = HAS_TLSv1_3 = HAS_NEVER_CHECK_COMMON_NAME = True
HAS_NPN = HAS_SSLv2 = HAS_SSLv3 = HAS_TLSv1 = HAS_TLSv1_1 = HAS_PSK = HAS_PHA = False


class TLSVersion(_IntEnum):
    MINIMUM_SUPPORTED = -2
    SSLv3 = 768
    TLSv1 = 769
    TLSv1_1 = 770
    TLSv1_2 = 771
    TLSv1_3 = 772
    MAXIMUM_SUPPORTED = -1


class VerifyMode(_IntEnum):
    CERT_NONE = 0
    CERT_OPTIONAL = 1
    CERT_REQUIRED = 2


class VerifyFlags(_IntFlag):
    VERIFY_DEFAULT = 0
    VERIFY_CRL_CHECK_LEAF = 0x4
    VERIFY_CRL_CHECK_CHAIN = 0xC
    VERIFY_X509_STRICT = 0x20
    VERIFY_ALLOW_PROXY_CERTS = 0x40
    VERIFY_X509_TRUSTED_FIRST = 0x8000
    VERIFY_X509_PARTIAL_CHAIN = 0x80000


class Options(_IntFlag):
    OP_ALL = 0x80000050
    OP_NO_SSLv2 = 0
    OP_NO_SSLv3 = 0x2000000
    OP_NO_TLSv1 = 0x4000000
    OP_NO_TLSv1_1 = 0x10000000
    OP_NO_TLSv1_2 = 0x8000000
    OP_NO_TLSv1_3 = 0x20000000
    OP_CIPHER_SERVER_PREFERENCE = 0x400000
    OP_SINGLE_DH_USE = 0
    OP_SINGLE_ECDH_USE = 0
    OP_NO_TICKET = 0x4000
    OP_NO_COMPRESSION = 0x20000
    OP_NO_RENEGOTIATION = 0x40000000
    OP_ENABLE_MIDDLEBOX_COMPAT = 0x100000
    OP_IGNORE_UNEXPECTED_EOF = 0x80
    OP_LEGACY_SERVER_CONNECT = 0x4


class _SSLMethod(_IntEnum):
    PROTOCOL_TLS = 2
    PROTOCOL_SSLv23 = 2
    PROTOCOL_TLSv1 = 3
    PROTOCOL_TLSv1_1 = 4
    PROTOCOL_TLSv1_2 = 5
    PROTOCOL_TLS_CLIENT = 16
    PROTOCOL_TLS_SERVER = 17


for _kind in (VerifyMode, VerifyFlags, Options, _SSLMethod):
    globals().update(_kind.__members__)

_ASN1Object = _namedtuple("_ASN1Object", "nid shortname longname oid")


class Purpose(_ASN1Object):
    """What a certificate is good for."""

    __slots__ = ()


Purpose.SERVER_AUTH = Purpose(129, "serverAuth", "TLS Web Server Authentication", "1.3.6.1.5.5.7.3.1")
Purpose.CLIENT_AUTH = Purpose(130, "clientAuth", "TLS Web Client Authentication", "1.3.6.1.5.5.7.3.2")


class SSLError(OSError):
    """TLS failed."""

    library = reason = None


class SSLZeroReturnError(SSLError):
    pass


class SSLWantReadError(SSLError):
    pass


class SSLWantWriteError(SSLError):
    pass


class SSLSyscallError(SSLError):
    pass


class SSLEOFError(SSLError):
    pass


class SSLCertVerificationError(SSLError, ValueError):
    verify_code = 0
    verify_message = ""


CertificateError = SSLCertVerificationError

_refuse = _wasmeval.refusal(OSError, (_errno.ENOTSUP, "TLS is the host's: none is spoken here"), "TLS of its own (ssl)")


class SSLContext:
    """Settings that are kept and change nothing."""

    sni_callback = keylog_filename = None
    hostname_checks_common_name = post_handshake_auth = False
    verify_flags = VerifyFlags.VERIFY_X509_TRUSTED_FIRST
    options = Options.OP_ALL | Options.OP_NO_SSLv3
    minimum_version, maximum_version = TLSVersion.TLSv1_2, TLSVersion.MAXIMUM_SUPPORTED
    session_stats = cert_store_stats = dict
    get_ca_certs = get_ciphers = list

    def __init__(self, protocol=_SSLMethod.PROTOCOL_TLS):
        self.protocol = _SSLMethod(protocol)
        client = protocol == _SSLMethod.PROTOCOL_TLS_CLIENT
        self.check_hostname = client
        self.verify_mode = VerifyMode.CERT_REQUIRED if client else VerifyMode.CERT_NONE

    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        if cafile is not None:
            _os.stat(cafile)

    def load_default_certs(self, purpose=Purpose.SERVER_AUTH):
        pass

    def set_default_verify_paths(self):
        pass

    def set_ciphers(self, ciphers):
        pass

    def set_alpn_protocols(self, protocols):
        pass

    def wrap_socket(
        self,
        sock,
        server_side=False,
        do_handshake_on_connect=True,
        suppress_ragged_eofs=True,
        server_hostname=None,
        session=None,
    ):
        if server_side:
            _refuse()
        return SSLSocket(sock, self, server_hostname)

    load_cert_chain = load_dh_params = set_ecdh_curve = wrap_bio = _refuse


class SSLSocket(_socket.socket):
    """A socket whose request goes out as https. It takes the connection over from the one it is made of."""

    def __init__(self, sock, context, server_hostname):
        super().__init__(sock.family, sock.type, sock.proto)
        self.settimeout(sock.gettimeout())
        self.context, self.server_hostname, self.session, self.server_side = context, server_hostname, None, False
        exchange, sock._exchange = sock._connected(), None
        exchange.secure = True
        self._exchange = exchange
        sock.close()

    def do_handshake(self, block=False):
        pass

    def read(self, most=1024, buffer=None):
        return self.recv(most) if buffer is None else self.recv_into(buffer, most)

    def write(self, data):
        return self.send(data)

    def getpeercert(self, binary_form=False):
        """Never one: the host has seen and checked it."""
        return None if binary_form else {}

    def version(self):
        return "TLSv1.3"

    def selected_alpn_protocol(self):
        return None

    def pending(self):
        return 0

    cipher = compression = selected_npn_protocol = selected_alpn_protocol
    unwrap = get_channel_binding = _refuse


class SSLObject:
    """Cannot be made here."""

    __init__ = _refuse


class MemoryBIO:
    """Cannot be made here."""

    __init__ = _refuse


class SSLSession:
    """Cannot be made here."""

    __init__ = _refuse


def create_default_context(purpose=Purpose.SERVER_AUTH, *, cafile=None, capath=None, cadata=None):
    if purpose == Purpose.CLIENT_AUTH:
        return SSLContext(_SSLMethod.PROTOCOL_TLS_SERVER)
    context = SSLContext(_SSLMethod.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile)
    return context


def _create_unverified_context(protocol=None, *, cert_reqs=VerifyMode.CERT_NONE, check_hostname=False, **settings):
    context = SSLContext(_SSLMethod.PROTOCOL_TLS_CLIENT if protocol is None else protocol)
    context.check_hostname, context.verify_mode = check_hostname, cert_reqs
    return context


_create_default_https_context = create_default_context
_create_stdlib_context = _create_unverified_context
get_server_certificate = RAND_add = _refuse


def RAND_bytes(count):
    return _os.urandom(count)


def RAND_status():
    return True
