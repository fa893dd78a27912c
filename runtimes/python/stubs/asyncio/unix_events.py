"""The event loop of this runtime: timers, tasks and calls of tools, no sockets, no processes, no signals.

Takes the place of asyncio's own `unix_events`. A loop that waits sleeps in the host, which wakes it when a call has
ended; as nothing else outside the loop can, waiting for ever without a call is an error here rather than a hang.
"""

import errno
import time

import _wasmeval
import _wasmeval_calls

from . import base_events, events

__all__ = ("SelectorEventLoop", "DefaultEventLoopPolicy", "EventLoop")


def _refuse(need):
    return _wasmeval.refusal(OSError, (errno.ENOTSUP, f"this runtime has no {need}"), need)


class _Sleeper:
    """What a selector is to a loop that has no files to wait for."""

    def select(self, timeout=None):
        if _wasmeval_calls.pending:
            _wasmeval_calls.settle_one(timeout if timeout is None else max(timeout, 0))
            return ()
        if timeout is None:
            raise RuntimeError("the event loop would wait for ever: nothing that is awaited can still happen")
        if timeout > 0:
            time.sleep(timeout)
        return ()


class SelectorEventLoop(base_events.BaseEventLoop):
    """An event loop whose only events are its own."""

    def __init__(self, selector=None):
        super().__init__()
        self._selector = _Sleeper()

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    create_connection = create_server = create_datagram_endpoint = create_unix_connection = _refuse("sockets")
    create_unix_server = connect_accepted_socket = getaddrinfo = getnameinfo = start_tls = _refuse("sockets")
    sock_accept = sock_connect = sock_recv = sock_recv_into = sock_recvfrom = sock_sendall = _refuse("sockets")
    sock_sendto = sock_sendfile = add_reader = add_writer = _refuse("sockets")
    connect_read_pipe = connect_write_pipe = _refuse("pipes")
    subprocess_exec = subprocess_shell = _refuse("processes")
    add_signal_handler = remove_signal_handler = _refuse("signals")


class _DefaultEventLoopPolicy(events.BaseDefaultEventLoopPolicy):
    _loop_factory = SelectorEventLoop


DefaultEventLoopPolicy = _DefaultEventLoopPolicy
EventLoop = SelectorEventLoop
