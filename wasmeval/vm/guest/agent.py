"""The agent of a microVM: runs in the guest as root, and does what its host says over one virtio-serial port.

    python3 -I -S -B agent.py

Frames, both ways, little-endian: u32 length of the payload | u8 kind | u32 number | payload. The kinds are below.

The agent starts the interpreters' harnesses (`python.py`, `javascript.cjs`) and the network relay, says READY, and
waits; then the machine is snapshotted. Each clone gets RESUME and one order (of a session: one after the other): FILE
for each file, then BEGIN, and RUN with what is to run. It answers with OUTPUT, CALL, INPUT, REPLY, and at last FILE
and DONE.

Whoever runs in the job is hostile to this process too: it runs as another user in a cgroup of its own, and nothing
here waits for it. What this process itself says is hostile to the host, which checks every frame.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import stat
import struct
import sys
import time

# Host to guest.
RESUME, FILE, BEGIN, RUN, FEED, ANSWER, SIGNAL, REHEARSE, STOP = range(1, 10)
# Guest to host.
READY, RESUMED, OUTPUT, TAIL, CALL, INPUT, REPLY, LEFT, DONE, FAILED, REHEARSED = range(33, 44)

HEADER = struct.Struct("<IBI")
HARNESS_HEADER = struct.Struct("<IB")
PATH = struct.Struct("<H")
SKIPPED = struct.Struct("<Q")
CLOCK = struct.Struct("<q")

PIECE_BYTES = 1 << 16
MOST_PENDING_BYTES = 1 << 20
"""Of what waits for the host to read it; beyond that nothing more is read from the job."""
MOST_FRAME_BYTES = 32 << 20
MOST_HARNESS_FRAME_BYTES = 16 << 20
MOST_PATH_BYTES = 4096

PORT, WORKSPACE, HOME = "wasmeval.agent", "/workspace", "/home/user"
USER = 1000
SCRATCH_DEVICE = b"/dev/vdb"
HERE = os.path.dirname(os.path.abspath(__file__))
GROUPS = "/sys/fs/cgroup"
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {
    "PATH": f"{HOME}/.local/bin:{PLAIN_PATH}",
    "HOME": HOME,
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PWD": WORKSPACE,
    "MPLBACKEND": "Agg",
    "MPLCONFIGDIR": f"{HOME}/.config/matplotlib",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PYTHONDONTWRITEBYTECODE": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "OPENBLAS_NUM_THREADS": "1",
}
PROXY = "http://127.0.0.1:3128"
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
HARNESSES = {
    "python": ["/usr/bin/python3", f"{HERE}/python.py"],
    "javascript": ["/usr/bin/node", f"{HERE}/javascript.cjs"],
}
PLAIN = "plain"
"""The cgroup of programs that no harness runs."""

# Source: Linux, include/uapi/linux/random.h.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207
# Source: Linux, include/uapi/linux/quota.h: QCMD(Q_SETQUOTA, USRQUOTA), QIF_LIMITS.
SET_QUOTA, QUOTA_LIMITS = 0x800008 << 8, 5
QUOTA = struct.Struct("<8QI4x")
QUOTA_BLOCK_BYTES = 1024

DEVNULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
libc = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """An order that cannot be followed; its text says why."""


# ---- the port ----------------------------------------------------------------------------------------------------


def open_port(name):
    """The virtio-serial port of that name, which may take a moment to appear."""
    folder = "/sys/class/virtio-ports"
    for _ in range(2000):
        for port in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{port}/name") as file:
                if file.read().strip() == name:
                    return os.open(f"/dev/{port}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(0.005)
    raise SystemExit(f"there is no port {name}")


class Stream:
    """Frames over one descriptor that never blocks: what does not go out yet waits, what has come is cut into frames."""

    def __init__(self, descriptor, header, most):
        self.descriptor = descriptor
        self._header = header
        self._most = most
        self._coming = bytearray()
        self._going = bytearray()

    @property
    def pending(self):
        return len(self._going)

    def put(self, data):
        self._going += data
        self.flush()

    def flush(self):
        while self._going:
            try:
                sent = os.write(self.descriptor, memoryview(self._going)[:PIECE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self._going.clear()
                return
            del self._going[:sent]

    def frames(self):
        """What has come, as header and payload. EOFError when nothing will."""
        try:
            data = os.read(self.descriptor, PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self._coming += data
        size = self._header.size
        while len(self._coming) >= size:
            head = self._header.unpack_from(self._coming)
            if head[0] > self._most:
                raise EOFError
            if len(self._coming) < size + head[0]:
                return
            payload = bytes(memoryview(self._coming)[size : size + head[0]])
            del self._coming[: size + head[0]]
            yield head, payload


# ---- what runs ---------------------------------------------------------------------------------------------------


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def number_in(path, name=""):
    """A number from a cgroup's file; the one behind `name` in a file of pairs."""
    try:
        with open(path) as file:
            for line in file:
                key, _, value = line.strip().rpartition(" ")
                if key == name:
                    return int(value)
    except (OSError, ValueError):
        pass
    return 0


def spawn(argv, group, environment, descriptors):
    """A process of the user's in that cgroup, with `descriptors` as its 0, 1, 2, ...; its number.

    Raises OSError when the program cannot be started.
    """
    failure, told = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            write(f"{GROUPS}/{group}/cgroup.procs", "0")
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            # Out of the way first: they may lie where others are to be.
            high = [fcntl.fcntl(each, fcntl.F_DUPFD, 64) for each in descriptors]
            for place, each in enumerate(high):
                os.dup2(each, place)
            os.closerange(len(high), told)
            os.closerange(told + 1, 1024)
            os.chdir(WORKSPACE)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.umask(0o022)
            os.execvpe(argv[0], argv, environment)
        except BaseException as error:
            os.write(told, struct.pack("<i", getattr(error, "errno", 0) or errno.EINVAL))
        finally:
            os._exit(127)
    os.close(told)
    answer = os.read(failure, 4)
    os.close(failure)
    if answer:
        os.waitpid(child, 0)
        number = struct.unpack("<i", answer)[0]
        raise OSError(number, os.strerror(number), argv[0])
    return child


class Output:
    """One of a job's two streams: passed on to its limit, and beyond that its last half kept."""

    def __init__(self, number, descriptor):
        self.number = number
        self.descriptor = descriptor
        self.limit = 0
        self.open = True
        self._passed = 0
        self._tail = bytearray()
        self._skipped = 0

    def read(self):
        """What there is to pass on; None when there is nothing to read."""
        try:
            data = os.read(self.descriptor, PIECE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.open = False
            return None
        room = self.limit - self._passed
        self._passed += min(room, len(data))
        self._keep(data[room:])
        return data[:room]

    def _keep(self, data):
        keep = self.limit - self.limit // 2
        self._tail += data
        # All of it at the end, and not for every read: that would move it each time.
        if len(self._tail) > keep + (1 << 20):
            self._skipped += len(self._tail) - keep
            del self._tail[: len(self._tail) - keep]

    def rest(self):
        """What was left out, and what came at the end; None when all was passed on. It begins anew."""
        keep = self.limit - self.limit // 2
        over = max(0, len(self._tail) - keep)
        told = SKIPPED.pack(self._skipped + over) + self._tail[over:] if self._tail else None
        self._passed = self._skipped = 0
        self._tail = bytearray()
        return told


class Process:
    """A process, the harness of a language or a plain program, with its three streams."""

    def __init__(self, argv, group, environment, with_control=False):
        os.makedirs(f"{GROUPS}/{group}", exist_ok=True)
        self.group = group
        theirs = []
        stdin, self.stdin = os.pipe2(os.O_CLOEXEC)
        self.outputs, control = [], None
        theirs.append(stdin)
        for number in (1, 2):
            ours, out = os.pipe2(os.O_CLOEXEC)
            theirs.append(out)
            self.outputs.append(Output(number, ours))
        if with_control:
            control, end = socket.socketpair()
            theirs.append(end.detach())
        try:
            self.number = spawn(argv, group, environment, theirs)
        except OSError:
            for each in (self.stdin, *(output.descriptor for output in self.outputs)):
                os.close(each)
            raise
        finally:
            for each in theirs:
                os.close(each)
        self.control = None
        if control is not None:
            self.control = Stream(control.detach(), HARNESS_HEADER, MOST_HARNESS_FRAME_BYTES)
            os.set_blocking(self.control.descriptor, False)
        for each in (self.stdin, *(output.descriptor for output in self.outputs)):
            os.set_blocking(each, False)
        self.status = None
        self.ending = os.pidfd_open(self.number)

    def close(self):
        """Let go of its descriptors."""
        held = [self.stdin, self.ending, *(output.descriptor for output in self.outputs)]
        for each in held:
            if each is not None:
                os.close(each)

    def poll(self):
        """How it ended, as a wait status; None while it runs."""
        if self.status is None:
            try:
                number, status = os.waitpid(self.number, os.WNOHANG)
            except ChildProcessError:
                number, status = self.number, 0
            if number:
                self.status = status
        return self.status


class Job:
    """What was ordered, while it runs. `process` does it."""

    def __init__(self, order, process):
        self.order = order
        self.process = process
        self.input = bytearray()
        self.input_ended = not order["stdin"]
        self.wants_input = order["stdin"]
        self.reply = None
        self.cpu = number_in(f"{GROUPS}/{process.group}/cpu.stat", "usage_usec")
        for output in process.outputs:
            output.limit = order["output_bytes"]
        if self.input_ended:
            os.close(process.stdin)
            process.stdin = None


class Agent:
    """All that goes on, in one loop."""

    def __init__(self):
        self.host = Stream(open_port(PORT), HEADER, MOST_FRAME_BYTES)
        self.harnesses = {}
        self.job = None
        self.files = {}
        self.quota_is_on = False
        self.shown = ""

    # ---- before the snapshot ----

    def prepare(self):
        """Start what waits in every clone."""
        write(f"{GROUPS}/cgroup.subtree_control", "+memory +pids +cpu")
        for group in (*HARNESSES, PLAIN):
            os.makedirs(f"{GROUPS}/{group}", exist_ok=True)
        for language, argv in HARNESSES.items():
            if os.access(argv[0], os.X_OK) and os.path.exists(argv[1]):
                self.harnesses[language] = Process(argv, language, ENVIRONMENT, with_control=True)
        for language, harness in list(self.harnesses.items()):
            if not self._is_warm(harness):
                del self.harnesses[language]
        versions = {name: number for name, number in self._versions()}
        self.say(READY, json.dumps({"languages": versions}).encode())

    def _is_warm(self, harness):
        """Whether it says so, within two minutes."""
        poll = select.poll()
        poll.register(harness.control.descriptor, select.POLLIN)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            poll.poll(1000)
            try:
                for (_, kind), _ in harness.control.frames():
                    return kind == ord("W")
            except EOFError:
                break
        for output in harness.outputs:
            data = output.descriptor and self._drain(output.descriptor)
            sys.stderr.write(f"wasmeval: {harness.group} did not start: {data!r}\n")
        return False

    @staticmethod
    def _drain(descriptor):
        try:
            return os.read(descriptor, PIECE_BYTES)
        except OSError:
            return b""

    def _said_by(self, argv):
        process = Process(argv, PLAIN, ENVIRONMENT)
        select.select([process.ending], [], [])
        process.poll()
        said = b"".join(self._drain(output.descriptor) for output in process.outputs)
        process.close()
        return said

    def _versions(self):
        for language in self.harnesses:
            text = self._said_by([HARNESSES[language][0], "--version"]).decode().strip()
            yield language, text.split(" ")[-1].lstrip("v")
        if os.access("/bin/bash", os.X_OK):
            yield "bash", ""

    # ---- the loop ----

    def run(self):
        while True:
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

    def _register(self, poll, job):
        """Wait for what the job says, and for its end."""
        process = job.process
        if process.status is None:
            poll.register(process.ending, select.POLLIN)
        if self.host.pending < MOST_PENDING_BYTES:
            for output in process.outputs:
                if output.open:
                    poll.register(output.descriptor, select.POLLIN)
            if process.control is not None:
                wanted = select.POLLIN | (select.POLLOUT if process.control.pending else 0)
                poll.register(process.control.descriptor, wanted)
        if job.input and process.stdin is not None:
            poll.register(process.stdin, select.POLLOUT)

    def _hear(self):
        try:
            for (_, kind, number), payload in self.host.frames():
                try:
                    self._obey(kind, number, payload)
                except (Broken, OSError, ValueError, KeyError) as error:
                    self.say(FAILED, str(error).encode("utf-8", "replace")[:1000])
        except EOFError:
            # The host holds the other end for as long as the machine lives.
            raise SystemExit("the host has gone") from None

    def _attend(self, job, ready):
        process = job.process
        if job.input and process.stdin in ready:
            self._feed(job)
        for output in process.outputs:
            if output.descriptor in ready:
                self._pass_on(output)
        if process.control is not None and process.control.descriptor in ready:
            self._hear_harness(job)
        if job is not self.job:
            return
        status = process.poll()
        if status is not None and (job.reply is not None or self._is_quiet(process, ready)):
            self._finish(job, status)

    def _is_quiet(self, process, ready):
        """Whether a process that has ended has nothing more to say: others may hold its streams for ever."""
        return not any(output.open and output.descriptor in ready for output in process.outputs)

    def say(self, kind, payload=b"", number=0):
        self.host.put(HEADER.pack(len(payload), kind, number) + payload)

    # ---- orders ----

    def _obey(self, kind, number, payload):
        if kind == RESUME:
            self._resume(payload)
        elif kind == FILE:
            self._write_file(number, payload)
        elif kind == BEGIN:
            self._begin(json.loads(payload))
        elif kind == RUN:
            self._run(payload)
        elif kind == FEED:
            self._take_input(payload, bool(number))
        elif kind == ANSWER:
            control = self.job and self.job.process.control
            if control:
                control.put(HARNESS_HEADER.pack(len(payload), ord("A")) + payload)
        elif kind == SIGNAL:
            if self.job is not None:
                os.killpg(self.job.process.number, number)
        elif kind == REHEARSE:
            self._rehearse()
        elif kind == STOP:
            self._stop()
        else:
            raise Broken(f"no order has the number {kind}")

    def _resume(self, payload):
        """A clone begins: nothing of chance and time may be as in the others."""
        (now,) = CLOCK.unpack_from(payload)
        seed, name = payload[8:72], payload[72:].decode()
        pool = os.open("/dev/urandom", os.O_WRONLY)
        fcntl.ioctl(pool, RNDADDENTROPY, struct.pack("<ii", len(seed) * 8, len(seed)) + seed)
        fcntl.ioctl(pool, RNDRESEEDCRNG)
        os.close(pool)
        time.clock_settime_ns(time.CLOCK_REALTIME, now)
        socket.sethostname(name)
        self.say(RESUMED)

    def _rehearse(self):
        """Go once through what an order takes: under software emulation the first time costs most."""
        for argv in (
            ["/bin/true"],
            ["/bin/bash", "-c", "true | true"],
            ["/usr/bin/python3", "-c", "print()"],
        ):
            if os.access(argv[0], os.X_OK):
                self._said_by(argv)
        for harness in self.harnesses.values():
            harness.control.put(HARNESS_HEADER.pack(0, ord("P")))
        for language, harness in list(self.harnesses.items()):
            if not self._is_warm(harness):
                del self.harnesses[language]
        self.say(REHEARSED)

    def _write_file(self, begins, payload):
        """A piece of a file below the workspace, as the user himself: what he left there leads nowhere else."""
        (length,) = PATH.unpack_from(payload)
        path = payload[2 : 2 + length].decode()
        with as_user():
            target = os.path.join(WORKSPACE, path)
            if begins:
                os.makedirs(os.path.dirname(target), exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if begins else os.O_APPEND)
            file = os.open(target, flags, 0o644)
            try:
                rest = memoryview(payload)[2 + length :]
                while rest:
                    rest = rest[os.write(file, rest) :]
            finally:
                os.close(file)

    def _begin(self, order):
        """What comes next, and its limits."""
        program = order["program"]
        group = program if program in self.harnesses else PLAIN
        write(f"{GROUPS}/{group}/memory.max", str(order["memory_bytes"]))
        write(f"{GROUPS}/{group}/pids.max", str(order["processes"]))
        self._limit_disk(order["workspace_bytes"], order["workspace_files"])
        self.order = order

    def _stop(self):
        """The job's time is over: what it has done until now counts."""
        if self.job is not None:
            write(f"{GROUPS}/{self.job.process.group}/cgroup.kill", "1")
            select.select([self.job.process.ending], [], [], 2)
            self._finish(self.job, self.job.process.poll())

    def _limit_disk(self, most_bytes, most_files):
        blocks = max(1, most_bytes // QUOTA_BLOCK_BYTES)
        quota = QUOTA.pack(blocks, blocks, 0, most_files, most_files, 0, 0, 0, QUOTA_LIMITS)
        if libc.quotactl(SET_QUOTA, SCRATCH_DEVICE, USER, quota) != 0:
            number = ctypes.get_errno()
            raise Broken(f"the disk's quota cannot be set: {os.strerror(number)}")

    def _run(self, payload):
        order, program = self.order, self.order["program"]
        if program in ("python", "javascript"):
            harness = self.harnesses.get(program)
            if harness is None or harness.poll() is not None:
                raise Broken(f"the interpreter of {program} is not there")
            self.job = Job(order, harness)
            harness.control.put(HARNESS_HEADER.pack(len(payload), ord("E")) + payload)
        else:
            environment = {**ENVIRONMENT, **order["environment"]}
            if order["network"]:
                environment = {**dict.fromkeys(PROXIES, PROXY), **environment}
            try:
                process = Process(self._argv(order, payload), PLAIN, environment)
            except OSError as error:
                # As a shell tells it.
                status = 127 if error.errno == errno.ENOENT else 126
                text = f"{error.filename}: {error.strerror}\n".encode()
                self.say(OUTPUT, text, 2)
                self._tell(order, {"exit_status": status}, None)
                return
            self.job = Job(order, process)
        if self.job.wants_input:
            self.say(INPUT)

    @staticmethod
    def _argv(order, code):
        if order["program"] == "command":
            return order["argv"]
        if len(code) <= 100_000:
            return ["/bin/bash", "-c", code.decode(), "snippet"]
        # Longer than one argument can be.
        script = os.open("/run/snippet", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            rest = memoryview(code)
            while rest:
                rest = rest[os.write(script, rest) :]
        finally:
            os.close(script)
        return ["/bin/bash", "/run/snippet"]

    # ---- a job's streams ----

    def _take_input(self, data, ended):
        job = self.job
        if job is None or job.process.stdin is None:
            return
        job.input += data
        job.input_ended = job.input_ended or ended
        self._feed(job)

    def _feed(self, job):
        """Write what input there is; when it is all with the job, more may come."""
        process = job.process
        while job.input:
            try:
                sent = os.write(process.stdin, memoryview(job.input)[:PIECE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                job.input.clear()
                break
            del job.input[:sent]
        if job.input_ended:
            os.close(process.stdin)
            process.stdin = None
        else:
            self.say(INPUT)

    def _pass_on(self, output):
        data = output.read()
        if data:
            self.say(OUTPUT, data, output.number)

    def _hear_harness(self, job):
        control = job.process.control
        control.flush()
        try:
            for (_, kind), payload in control.frames():
                if kind == ord("H"):
                    self.say(CALL, payload)
                elif kind == ord("R"):
                    self._finish(job, None, payload)
                    return
        except EOFError:
            # It closed its end, or died: what it died of is told by `poll`.
            job.process.control = None

    # ---- the end of a job ----

    def _finish(self, job, status, reply=None):
        process = job.process
        for output in process.outputs:
            while output.open and (data := output.read()) is not None:
                if data:
                    self.say(OUTPUT, data, output.number)
            rest = output.rest()
            if rest is not None:
                self.say(TAIL, rest, output.number)
        self.job = None
        if not job.order["is_step"]:
            write(f"{GROUPS}/{process.group}/cgroup.kill", "1")
        ended = {}
        if status is not None:
            ended["exit_status"] = os.waitstatus_to_exitcode(status)
        self._tell(job.order, ended, process, reply, job.cpu)

    def _tell(self, order, ended, process, reply=None, cpu=0):
        """The reply, the files, and how it ended."""
        if reply is not None:
            for start in range(0, len(reply), PIECE_BYTES):
                self.say(REPLY, reply[start : start + PIECE_BYTES])
        group = f"{GROUPS}/{process.group if process else PLAIN}"
        ended["files_left_out"] = self._send_files(order)
        ended["out_of_memory"] = number_in(f"{group}/memory.events", "oom_kill") > 0
        ended["peak_memory_bytes"] = number_in(f"{group}/memory.peak")
        ended["cpu_seconds"] = (number_in(f"{group}/cpu.stat", "usage_usec") - cpu) / 1e6
        self.say(DONE, json.dumps(ended).encode())

    def _send_files(self, order):
        """The files that were asked for; whether some are left out because they are too many or too large."""
        if not order["outputs"]:
            return False
        patterns = [
            [re.compile(part) if part is not None else None for part in parts] for parts in order["outputs"]
        ]
        room, count = order["workspace_bytes"], order["workspace_files"]
        with as_user():
            for path in matching(WORKSPACE, patterns):
                count -= 1
                if count < 0 or not (room := self._send_file(path, room)):
                    return True
        return False

    def _send_file(self, path, room):
        """Send a file; what room is left, 0 when it did not suffice."""
        name = os.fsencode(path)
        try:
            file = os.open(
                os.path.join(WORKSPACE, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError:
            return room
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return room
            begins = 1
            while begins or data:
                try:
                    data = os.read(file, PIECE_BYTES)
                except OSError:
                    return room
                room -= len(data)
                if room <= 0:
                    return 0
                if begins or data:
                    self.say(LEFT, PATH.pack(len(name)) + name + data, begins)
                begins = 0
                self._make_room()
            return room
        finally:
            os.close(file)

    def _make_room(self):
        """Wait until the host has read the most of it."""
        while self.host.pending > MOST_PENDING_BYTES:
            select.select([], [self.host.descriptor], [])
            self.host.flush()


class as_user:
    """Within it, files are opened with the rights of the job's user and count to its quota."""

    def __enter__(self):
        os.setegid(USER)
        os.seteuid(USER)

    def __exit__(self, *error):
        os.seteuid(0)
        os.setegid(0)


def matching(root, patterns):
    """Paths below `root` that match one of `patterns`, sorted. A pattern is a list with an expression for each name, None
    standing for any number of folders. Links are neither followed nor given."""

    def beyond(states):
        found = set(states)
        for pattern, place in states:
            while place < len(pattern) and pattern[place] is None:
                place += 1
                found.add((pattern, place))
        return found

    def after(states, name):
        for pattern, place in beyond(states):
            if place < len(pattern):
                part = pattern[place]
                if part is None:
                    yield pattern, place
                elif part.match(name):
                    yield pattern, place + 1

    def below(folder, prefix, states):
        try:
            entries = [
                (entry.name + "/" * entry.is_dir(follow_symlinks=False), entry)
                for entry in os.scandir(folder)
            ]
        except OSError:
            return
        for _, entry in sorted(entries, key=lambda each: os.fsencode(each[0])):
            path = prefix + entry.name
            reached = set(after(states, entry.name))
            if len(os.fsencode(path)) > MOST_PATH_BYTES or not reached:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from below(entry.path, path + "/", reached)
            elif entry.is_file(follow_symlinks=False):
                if any(place == len(pattern) for pattern, place in beyond(reached)):
                    yield path

    return below(root, "", {(tuple(pattern), 0) for pattern in patterns})


def start_relay():
    """The network's relay, a process of its own: what it does not survive costs the network alone."""
    path = f"{HERE}/network.py"
    if os.path.exists(path) and os.fork() == 0:
        os.execv("/usr/bin/python3", ["/usr/bin/python3", "-I", "-S", "-B", path])


def main():
    if os.getpid() == 1:
        agent = os.fork()
        if agent:
            reap(agent)
    start_relay()
    agent = Agent()
    agent.prepare()
    agent.run()


def reap(agent):
    """Process 1: buries whoever was left behind, and ends the machine when the agent has ended."""
    while True:
        try:
            number, _ = os.wait()
        except ChildProcessError:
            number = agent
        if number == agent:
            write("/proc/sysrq-trigger", "o")
            time.sleep(60)


if __name__ == "__main__":
    main()
