"""The agent of a microVM: runs in the guest as root, and does what its host says over one virtio-serial port.

    python3 -I -S -B agent.py

Frames, both ways, little-endian: u32 length of the payload | u8 kind | u32 number | payload. The kinds
are those of `wasmeval/vm/frames.py`.

The agent starts the interpreters' harnesses (`python.py`, `javascript.cjs`) and the network's relay, says READY, and
waits; then the machine is snapshotted. Each clone gets RESUME and one order (of a session: one after the other): FILE
for each file, then BEGIN, and RUN with what is to run. It answers with OUTPUT, CALL, INPUT, REPLY, and at last LEFT
and DONE.

Whoever runs in the job is hostile to this process too: he is another user, in a cgroup of its own, and nothing here
waits for him. What this process itself says is hostile to the host, which checks every frame.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from _agent_files import limit_disk, read_pieces, write_piece  # noqa: E402
from _agent_processes import GROUPS, WORKSPACE, Output, Process, number_in, said_by, write  # noqa: E402
from _agent_streams import (  # noqa: E402
    ANSWER,
    ANSWERED,
    BEGIN,
    CALL,
    CALLED,
    DONE,
    EVALUATE,
    FAILED,
    FEED,
    FILE,
    HARNESS_HEADER,
    HEADER,
    INPUT,
    LEFT,
    OUTPUT,
    PIECE_BYTES,
    PRACTISE,
    READY,
    REHEARSE,
    REHEARSED,
    REPLIED,
    REPLY,
    RESUME,
    RESUMED,
    RUN,
    SIGNAL,
    STOP,
    TAIL,
    WARM,
    Stream,
    open_port,
)

PORT = "wasmeval.agent"
HOME = "/home/user"
ENVIRONMENT = {
    "PATH": f"{HOME}/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": HOME,
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "TERM": "dumb",
    "PWD": WORKSPACE,
    "MPLBACKEND": "Agg",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "GIT_TERMINAL_PROMPT": "0",
    # There is one CPU.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
HARNESSES = {
    "python": ["/usr/bin/python3", f"{HERE}/python.py"],
    "javascript": [
        "/usr/bin/node",
        "--expose-internals",
        "--experimental-vm-modules",
        "--no-flush-bytecode",
        f"{HERE}/javascript.cjs",
    ],
}
OF_HARNESSES = {**ENVIRONMENT, "PYTHONHASHSEED": "20"}
"""The seed is one in all clones anyway; so it is one in all golden machines as well."""
PLAIN = "plain"
"""The cgroup of programs that no harness runs."""
BASH = "/bin/bash"
SCRIPT = "/run/snippet"

WARM_SECONDS = 200
KILLING_SECONDS = 2
MOST_PENDING_BYTES = 1 << 20
"""Of what waits for the host to read it; beyond that nothing more is read from the job."""
MOST_ARGUMENT_BYTES = 100_000
"""Of one argument; Linux takes 128 KiB. Source: execve(2)."""
SEED_BYTES = 64
MOST_READS = 32
"""Of PIECE_BYTES: twice what a user's pipe can hold. Source: pipe(7), pipe-max-size."""

# Source: Linux, include/uapi/linux/random.h.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207


class Broken(Exception):
    """An order that cannot be followed; its text says why."""


class Job:
    """What was ordered, while it runs. `process` does it."""

    def __init__(self, order: dict[str, Any], process: Process) -> None:
        self.order = order
        self.process = process
        self.input = bytearray()
        self.input_ended = not order["stdin"]
        self.kills = oom_kills(process.group)
        process.open_stdin()
        for output in process.outputs:
            output.limit = order["output_bytes"]
        if self.input_ended:
            process.close_stdin()


class Agent:
    """All that goes on, in one loop."""

    def __init__(self) -> None:
        self.host = Stream(open_port(PORT), HEADER)
        self.harnesses: dict[str, Process] = {}
        self.order: dict[str, Any] = {}
        self.refusal = ""
        """Why what comes next cannot be run."""
        self.job: Job | None = None

    # ---- before the snapshot ----

    def prepare(self) -> None:
        """Start what waits in every clone."""
        write(f"{GROUPS}/cgroup.subtree_control", "+memory +pids +cpu")
        for group in (*HARNESSES, PLAIN):
            os.makedirs(f"{GROUPS}/{group}", exist_ok=True)
        for language, argv in HARNESSES.items():
            if os.access(argv[0], os.X_OK) and os.path.exists(argv[-1]):
                self.harnesses[language] = Process(argv, language, OF_HARNESSES, has_control=True)
        for language, harness in list(self.harnesses.items()):
            self._await_harness(language, harness)
        languages: dict[str, tuple[str, int]] = {}
        for language in self.harnesses:
            version = said_by([HARNESSES[language][0], "--version"], PLAIN, ENVIRONMENT)
            memory = number_in(f"{GROUPS}/{language}/memory.current")
            languages[language] = version.split(" ")[-1].lstrip("v"), memory
        if os.access(BASH, os.X_OK):
            version = said_by([BASH, "-c", "echo $BASH_VERSION"], PLAIN, ENVIRONMENT).partition("(")[0]
            languages["bash"] = version, 0
        self.say(READY, json.dumps({"languages": languages}).encode())

    def _await_harness(self, language: str, harness: Process) -> None:
        """Forget one that does not say that it is warm."""
        if not self._is_warm(harness):
            said = [output.read() for output in harness.outputs]
            sys.stderr.write(f"wasmeval: the harness of {language} does not start: {said!r}\n")
            del self.harnesses[language]

    @staticmethod
    def _is_warm(harness: Process) -> bool:
        assert harness.control is not None
        end = time.monotonic() + WARM_SECONDS
        while (left := end - time.monotonic()) > 0:
            select.select([harness.control.descriptor], [], [], left)
            try:
                for head, _ in harness.control.frames():
                    return bool(head[1] == WARM)
            except EOFError:
                break
        return False

    # ---- the loop ----

    def run(self) -> None:
        """Go on for ever."""
        while True:
            self._turn()

    def _turn(self) -> None:
        """Wait for whatever comes first, and see to it."""
        poll = select.poll()
        poll.register(self.host.descriptor, select.POLLIN | (select.POLLOUT if self.host.pending else 0))
        job = self.job
        if job is not None:
            self._register(poll, job)
        ready = dict(poll.poll())
        if self.host.descriptor in ready:
            self.host.flush()
            if ready[self.host.descriptor] & (select.POLLIN | select.POLLHUP):
                self._hear()
        if job is not None and job is self.job:
            self._attend(job, ready)

    def _register(self, poll: Any, job: Job) -> None:
        """Wait for what the job says, and for its end."""
        process = job.process
        if process.status is None:
            poll.register(process.ending, select.POLLIN)
        if self.host.pending < MOST_PENDING_BYTES:
            for output in process.outputs:
                if output.is_open:
                    poll.register(output.descriptor, select.POLLIN)
            if process.control is not None:
                wanted = select.POLLIN | (select.POLLOUT if process.control.pending else 0)
                poll.register(process.control.descriptor, wanted)
        if job.input and process.stdin is not None:
            poll.register(process.stdin, select.POLLOUT)

    def _hear(self) -> None:
        try:
            for (_, kind, number), payload in self.host.frames():
                try:
                    self._obey(kind, number, payload)
                except (Broken, OSError, ValueError, KeyError) as error:
                    self.say(FAILED, str(error).encode("utf-8", "replace")[:1000])
        except EOFError:
            # The host holds the other end for as long as the machine lives.
            raise SystemExit("the host has gone") from None

    def _attend(self, job: Job, ready: dict[int, int]) -> None:
        process = job.process
        if job.input and process.stdin in ready:
            self._feed(job)
        for output in process.outputs:
            if output.descriptor in ready:
                self._pass_on(output)
        if process.control is not None and process.control.descriptor in ready:
            self._hear_harness(job)
        if job is self.job and process.poll() is not None and self._is_quiet(process, ready):
            self._finish(job)

    @staticmethod
    def _is_quiet(process: Process, ready: dict[int, int]) -> bool:
        """Whether a process that has ended has nothing more to say: others may hold its streams for ever."""
        return not any(output.is_open and output.descriptor in ready for output in process.outputs)

    def say(self, kind: int, payload: bytes = b"", number: int = 0) -> None:
        """Tell the host."""
        self.host.put(HEADER.pack(len(payload), kind, number) + payload)

    # ---- orders ----

    def _obey(self, kind: int, number: int, payload: bytes) -> None:
        if kind == RESUME:
            self._resume(payload)
        elif kind == REHEARSE:
            self._rehearse()
        elif kind in (FILE, BEGIN):
            self._make_ready(kind, number, payload)
        elif kind == RUN:
            refusal, self.refusal = self.refusal, ""
            if refusal:
                raise Broken(refusal)
            self._run(payload)
        elif kind == FEED:
            self._take_input(payload, bool(number))
        elif kind == ANSWER:
            self._answer(payload)
        elif kind == SIGNAL:
            if self.job is not None and self.job.process.poll() is None:
                os.killpg(self.job.process.number, number)
        elif kind == STOP:
            self._stop()
        else:
            raise Broken(f"no order has the number {kind}")

    def _make_ready(self, kind: int, number: int, payload: bytes) -> None:
        """What goes wrong here is told by RUN, which then runs nothing: a session goes on."""
        try:
            if kind == FILE:
                write_piece(number, payload)
            else:
                self._begin(json.loads(payload))
        except OSError as error:
            self.refusal = self.refusal or str(error)

    def _resume(self, payload: bytes) -> None:
        """A clone begins: nothing of chance and time may be as in the others."""
        (now,) = struct.unpack_from("<q", payload)
        seed, name = payload[8 : 8 + SEED_BYTES], payload[8 + SEED_BYTES :].decode()
        pool = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("<ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(pool, RNDRESEEDCRNG)
        os.close(pool)
        time.clock_settime_ns(time.CLOCK_REALTIME, now)
        socket.sethostname(name)
        self.say(RESUMED)

    def _rehearse(self) -> None:
        """Go once through what an order takes: under software emulation the first time costs most."""
        order: dict[str, Any] = {
            "program": "command", "environment": {}, "stdin": False, "outputs": [["nothing"]],
            "is_step": False, "output_bytes": 1 << 20, "memory_bytes": 1 << 29, "processes": 64,
            "workspace_bytes": 1 << 29, "workspace_files": 1 << 16,
        }  # fmt: skip
        commands = [["/bin/true"], [BASH, "-c", "echo $(true)"], ["/usr/bin/python3", "-c", "print()"]]
        self.host.muted = True
        for argv in commands:
            if os.access(argv[0], os.X_OK):
                self._begin({**order, "argv": argv})
                self._run(b"")
                while self.job is not None:
                    self._turn()
        self.host.muted = False
        # Python alone: what node takes would push the rest out of what the emulation keeps of translated code.
        python = self.harnesses.get("python")
        if python is not None and python.control is not None:
            python.control.put(HARNESS_HEADER.pack(0, PRACTISE))
            self._await_harness("python", python)
        self.say(REHEARSED)

    def _begin(self, order: dict[str, Any]) -> None:
        """What comes next, and its limits."""
        group = order["program"] if order["program"] in self.harnesses else PLAIN
        write(f"{GROUPS}/{group}/memory.max", str(order["memory_bytes"]))
        write(f"{GROUPS}/{group}/pids.max", str(order["processes"]))
        limit_disk(order["workspace_bytes"], order["workspace_files"])
        if order["is_step"]:
            time.clock_settime_ns(time.CLOCK_REALTIME, order["time_ns"])
        self.order = order

    def _run(self, payload: bytes) -> None:
        order = self.order
        if order["program"] in HARNESSES:
            harness = self.harnesses.get(order["program"])
            if harness is None:
                raise Broken(f"the interpreter of {order['program']} is not there")
            self.job = Job(order, harness)
            if harness.control is None or harness.poll() is not None:
                # It ended after a session's last step.
                self._finish(self.job)
                return
            harness.control.put(HARNESS_HEADER.pack(len(payload), EVALUATE) + payload)
        else:
            try:
                process = Process(self._argv(order, payload), PLAIN, {**ENVIRONMENT, **order["environment"]})
            except OSError as error:
                # As a shell tells it, as much of it as may be said.
                text = f"{error.filename}: {error.strerror}\n".encode("utf-8", "replace")
                self.say(OUTPUT, text[: order["output_bytes"]], 2)
                self._tell(order, 127 if error.errno == errno.ENOENT else 126, None)
                return
            self.job = Job(order, process)
        if order["stdin"]:
            self.say(INPUT)

    @staticmethod
    def _argv(order: dict[str, Any], code: bytes) -> list[str]:
        if order["program"] == "command":
            return list(order["argv"])
        if len(code) <= MOST_ARGUMENT_BYTES:
            return [BASH, "-c", code.decode(), "snippet"]
        script = os.open(SCRIPT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(code)
            while rest:
                rest = rest[os.write(script, rest) :]
        finally:
            os.close(script)
        return [BASH, SCRIPT]

    def _stop(self) -> None:
        """The job's time is over: what it has done until now counts."""
        if self.job is not None:
            write(f"{GROUPS}/{self.job.process.group}/cgroup.kill", "1")
            self.job.process.wait(KILLING_SECONDS)
            self._finish(self.job)

    # ---- a job's streams ----

    def _take_input(self, data: bytes, ended: bool) -> None:
        job = self.job
        if job is not None and job.process.stdin is not None:
            job.input += data
            job.input_ended = job.input_ended or ended
            self._feed(job)

    def _feed(self, job: Job) -> None:
        """Write what input there is; when it is all with the job, more may come."""
        process = job.process
        while job.input and process.stdin is not None:
            try:
                sent = os.write(process.stdin, memoryview(job.input)[:PIECE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                job.input.clear()
                break
            del job.input[:sent]
        if job.input_ended:
            process.close_stdin()
        else:
            self.say(INPUT)

    def _answer(self, payload: bytes) -> None:
        control = self.job.process.control if self.job is not None else None
        if control is not None:
            control.put(HARNESS_HEADER.pack(len(payload), ANSWERED) + payload)

    def _pass_on(self, output: Output) -> bool:
        """Pass on what there is; whether there was any."""
        data = output.read()
        if data:
            self.say(OUTPUT, data, output.number)
        return data is not None

    def _hear_harness(self, job: Job) -> None:
        control = job.process.control
        assert control is not None
        control.flush()
        try:
            for head, payload in control.frames():
                if head[1] == CALLED:
                    self.say(CALL, payload)
                elif head[1] == REPLIED:
                    self._finish(job, payload)
                    return
        except EOFError:
            # It closed its end, or died: what it died of is told by `poll`.
            job.process.control = None

    # ---- the end of a job ----

    def _finish(self, job: Job, reply: bytes | None = None) -> None:
        process, self.job = job.process, None
        for output in process.outputs:
            self._drain(output)
        if not job.order["is_step"]:
            write(f"{GROUPS}/{process.group}/cgroup.kill", "1")
        status = None if process.status is None else os.waitstatus_to_exitcode(process.status)
        self._tell(job.order, status, reply, process.group, job.kills)
        if job.order["is_step"] and job.order["program"] in HARNESSES:
            process.close_stdin()
        else:
            process.close()

    def _drain(self, output: Output) -> None:
        """Pass on what was written until now: of somebody who goes on writing, no more than a pipe holds."""
        for _ in range(MOST_READS):
            if not output.is_open or not self._pass_on(output):
                break
            self._make_room()
        rest = output.rest()
        if rest is not None:
            self.say(TAIL, rest, output.number)

    def _tell(
        self,
        order: dict[str, Any],
        status: int | None,
        reply: bytes | None,
        group: str = PLAIN,
        kills: int = 0,
    ) -> None:
        """The reply, the files, and how it ended."""
        for start in range(0, len(reply or b""), PIECE_BYTES):
            self.say(REPLY, (reply or b"")[start : start + PIECE_BYTES])
        ended = {
            "exit_status": status,
            "files_left_out": self._send_files(order),
            "out_of_memory": oom_kills(group) > kills,
            "peak_memory_bytes": number_in(f"{GROUPS}/{group}/memory.peak"),
        }
        self.say(DONE, json.dumps(ended).encode())

    def _send_files(self, order: dict[str, Any]) -> bool:
        """The files that were asked for; whether some are left out because they are too many or too large."""
        if not order["outputs"]:
            return False
        for piece in read_pieces(order["outputs"], order["workspace_bytes"], order["workspace_files"]):
            if piece is None:
                return True
            begins, payload = piece
            self.say(LEFT, payload, begins)
            self._make_room()
        return False

    def _make_room(self) -> None:
        """Wait until the host has read the most of it."""
        while self.host.pending > MOST_PENDING_BYTES:
            select.select([], [self.host.descriptor], [])
            self.host.flush()


def oom_kills(group: str) -> int:
    """How many processes were killed in it, so far, because its memory ran out."""
    kills: int = number_in(f"{GROUPS}/{group}/memory.events", "oom_kill")
    return kills


def start_relay() -> None:
    """The network's relay, a process of its own: what it does not survive costs the network alone. Returns when it
    listens, or has ended."""
    ready, tells = os.pipe()
    if os.fork() == 0:
        argv = ["/usr/bin/python3", "-I", "-S", "-B", f"{HERE}/network.py", "--ready", str(tells)]
        os.set_inheritable(tells, True)
        os.execv(argv[0], argv)
    os.close(tells)
    while os.read(ready, 64):
        pass
    os.close(ready)


def reap(agent: int) -> None:
    """Process 1: buries whoever was left behind, and ends the machine when the agent has ended."""
    while True:
        try:
            number, _ = os.wait()
        except ChildProcessError:
            number = agent
        if number == agent:
            write("/proc/sysrq-trigger", "o")
            time.sleep(60)


def main() -> None:
    """Be the agent; as process 1, have one."""
    if os.getpid() == 1:
        child = os.fork()
        if child:
            reap(child)
    start_relay()
    agent = Agent()
    agent.prepare()
    agent.run()


if __name__ == "__main__":
    main()
