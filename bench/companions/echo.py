"""A socket pair and a process at its other end that only answers: what it costs to be woken."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from typing import Any

from bench.companions import lines

_BYTES = 90
_ECHO = """
import os, select, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
os.nice(5)
poller = select.poll()
poller.register(channel.fileno(), select.POLLIN)
while True:
    poller.poll()
    data = channel.recv(65536)
    if not data:
        break
    channel.sendall(data)
"""


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The median of `count` round trips, each after a rest: both sides are asleep when it begins."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-I", "-c", _ECHO, str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as process:
        theirs.close()
        poll = select.epoll()
        poll.register(ours.fileno(), select.EPOLLIN)
        seconds = []
        for _ in range(question["count"]):
            time.sleep(0.0002)
            start = time.perf_counter()
            ours.send(bytes(_BYTES))
            poll.poll()
            ours.recv(65536)
            seconds.append(time.perf_counter() - start)
        ours.shutdown(socket.SHUT_RDWR)
        process.wait(10)
    seconds.sort()
    return {"seconds": [seconds[len(seconds) // 2]]}


if __name__ == "__main__":
    lines.serve(answer)
