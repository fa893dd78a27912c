"""Stands for the extension module `_socket`: sockets that carry HTTP requests to the host, where the evaluation may send any.

What merely imports `socket` always works. Any other use of one needs sockets, which this runtime does not have.
"""

import errno as _errno

import _wasmeval
import _wasmeval_calls as _calls
import _wasmeval_http as _http

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
_refuse_http = _wasmeval.refusal(OSError, (_errno.EACCES, _http.NOT_ALLOWED), _http.NEED)


class socket:
    """A connection that carries one HTTP request, where the evaluation may send any; nothing else can be made."""

    __slots__ = ("_exchange", "_settings", "_timeout")

    def __init__(self, family=AF_INET, type=SOCK_STREAM, proto=0, fileno=None):
        self._exchange = None
        if not _calls.allows_http() or fileno is not None or (family, type) != (AF_INET, SOCK_STREAM):
            _refuse()
        self._settings, self._timeout = (family, type, proto), _default_timeout

    # `socket.socket` has properties of the same names above these.
    family = property(lambda self: self._settings[0])
    type = property(lambda self: self._settings[1])
    proto = property(lambda self: self._settings[2])
    timeout = property(lambda self: self._timeout)

    def connect(self, address):
        """Nothing is connected yet: the host does that with the request."""
        self._exchange = _http.Exchange(*address[:2])

    def connect_ex(self, address):
        self.connect(address)
        return 0

    def send(self, data, flags=0):
        exchange = self._connected()
        exchange.seconds = self._timeout
        view = memoryview(data).cast("B")
        exchange.send(view)
        return len(view)

    def sendall(self, data, flags=0):
        self.send(data)

    def recv(self, most, flags=0):
        return self._connected().receive(most)

    def recv_into(self, buffer, most=0, flags=0):
        view = memoryview(buffer).cast("B")
        part = self._connected().receive(most or len(view))
        view[: len(part)] = part
        return len(part)

    def _connected(self):
        if self._exchange is None:
            raise OSError(_errno.ENOTCONN, "the socket is not connected")
        return self._exchange

    def close(self):
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def __del__(self):
        try:
            exchange = self._exchange
        except AttributeError:
            return
        if exchange is not None:
            exchange.close()

    def settimeout(self, seconds):
        if seconds is not None and seconds < 0:
            raise ValueError("Timeout value out of range")
        self._timeout = seconds

    def gettimeout(self):
        return self._timeout

    def setblocking(self, blocking):
        self._timeout = None if blocking else 0.0

    def getblocking(self):
        return self._timeout != 0.0

    def getpeername(self):
        return self._connected().host, self._connected().port

    def getsockname(self):
        return "0.0.0.0", 0

    def fileno(self):
        return -1

    def setsockopt(self, *option):
        pass

    def getsockopt(self, *option):
        return 0

    def shutdown(self, how):
        pass

    accept = _accept = bind = detach = listen = recvfrom = recvfrom_into = recvmsg = recvmsg_into = _refuse
    sendmsg = sendto = _refuse


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


_PORTS = {"http": 80, "https": 443}


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    """The name itself: it is resolved, and its address checked, by the host that connects to it."""
    if not _calls.allows_http():
        _refuse_http()
    if type not in (0, SOCK_STREAM) or family not in (AF_UNSPEC, AF_INET) or host is None:
        _refuse()
    name = host.decode("ascii") if isinstance(host, bytes) else host
    number = _PORTS.get(port) or int(port or 0)
    return [(AF_INET, SOCK_STREAM, IPPROTO_TCP, "", (name, number))]


gethostbyname = gethostbyname_ex = gethostbyaddr = getnameinfo = getservbyname = getservbyport = _refuse
getprotobyname = socketpair = dup = close = sethostname = if_nameindex = if_nametoindex = if_indextoname = _refuse
