"""Stands for the extension module `_socket`, so that what merely imports `socket` works; any use needs sockets."""

import errno as _errno

import _wasmeval

AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6 = 0, 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW = 1, 2, 3
SOCK_NONBLOCK, SOCK_CLOEXEC = 0o4000, 0o2000000
SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_BROADCAST, SO_KEEPALIVE, SO_REUSEPORT = 1, 2, 4, 6, 9, 15
IPPROTO_IP, IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 1, 6, 17, 41
TCP_NODELAY, IPV6_V6ONLY = 1, 26
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
AI_PASSIVE, AI_CANONNAME, AI_NUMERICHOST, AI_NUMERICSERV, AI_ADDRCONFIG = 1, 2, 4, 1024, 32
NI_NUMERICHOST, NI_NUMERICSERV = 1, 2
EAI_NONAME, EAI_FAMILY = -2, -6
INADDR_ANY, INADDR_LOOPBACK, INADDR_BROADCAST = 0, 0x7F000001, 0xFFFFFFFF
SOMAXCONN = 4096
has_ipv6 = False

error = OSError


class herror(OSError):
    """A host could not be looked up."""


class gaierror(OSError):
    """An address could not be resolved."""


timeout = TimeoutError

_default_timeout = None


_refuse = _wasmeval.refusal(OSError, (_errno.ENOTSUP, "this runtime has no sockets"), "sockets")


class socket:
    """Cannot be made here."""

    __slots__ = ()
    __init__ = _refuse

    def __del__(self):
        pass

    family = type = proto = timeout = None
    accept = _accept = bind = close = connect = connect_ex = detach = fileno = getpeername = _refuse
    getsockname = getsockopt = listen = recv = recv_into = recvfrom = recvfrom_into = recvmsg = recvmsg_into = _refuse
    send = sendall = sendmsg = sendto = setblocking = getblocking = setsockopt = settimeout = gettimeout = _refuse
    shutdown = _refuse


SocketType = socket


def getdefaulttimeout():
    return _default_timeout


def setdefaulttimeout(seconds):
    global _default_timeout
    _default_timeout = seconds


def gethostname():
    return "localhost"


def htons(number):
    return int.from_bytes(number.to_bytes(2, "little"), "big")


def htonl(number):
    return int.from_bytes(number.to_bytes(4, "little"), "big")


ntohs, ntohl = htons, htonl


def inet_aton(text):
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in parts):
        raise OSError("illegal IP address string passed to inet_aton")
    return bytes(map(int, parts))


def inet_ntoa(packed):
    if len(packed) != 4:
        raise OSError("packed IP wrong length")
    return ".".join(map(str, packed))


def inet_pton(family, text):
    import ipaddress

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        address = None
    if address is None or (address.version == 4) != (family == AF_INET):
        raise OSError("illegal IP address string passed to inet_pton")
    return address.packed


def inet_ntop(family, packed):
    import ipaddress

    if len(packed) != (4 if family == AF_INET else 16):
        raise ValueError("invalid length of packed IP address string")
    return str(ipaddress.ip_address(packed))


getaddrinfo = gethostbyname = gethostbyname_ex = gethostbyaddr = getnameinfo = getservbyname = getservbyport = _refuse
getprotobyname = socketpair = dup = close = sethostname = if_nameindex = if_nametoindex = if_indextoname = _refuse
