"""Clones of one warm Python harness, by fork: each has the memory of the moment in which a microVM's is snapshotted.

Usage: clone_server.py GUEST, the folder with the guest's files. On descriptor 3 come messages of four descriptors, the
channel and the three streams of one clone, with the folder it starts in. Runs on whatever interpreter the harness does.
"""

import array
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path


def main():
    guest = Path(sys.argv[1])
    control = socket.socket(fileno=os.dup(3))
    os.close(3)
    specification = importlib.util.spec_from_file_location("harness", guest / "python.py")
    harness = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(harness)
    interpreter = harness.prepare()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control.send(b"W")
    while True:
        folder, descriptors = receive(control)
        if not folder:
            break
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            become(interpreter, harness, folder, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def receive(control):
    descriptors = array.array("i")
    folder, parts, _, _ = control.recvmsg(4096, socket.CMSG_SPACE(4 * descriptors.itemsize))
    for _, _, content in parts:
        descriptors.frombytes(content)
    return folder, list(descriptors)


def become(interpreter, harness, folder, descriptors):
    channel, *streams = descriptors
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if channel != harness.CHANNEL_DESCRIPTOR:
        os.dup2(channel, harness.CHANNEL_DESCRIPTOR)
        os.close(channel)
    os.chdir(folder)
    sys.path[0] = os.fsdecode(folder)
    interpreter.process = os.getpid()
    harness.serve(interpreter, harness._take_channel())


main()
