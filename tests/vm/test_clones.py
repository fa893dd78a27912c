"""Clones of one machine share nothing that matters: no random number, no clock that stands, no file, no name."""

from __future__ import annotations

import time

import wasmeval
from wasmeval import Evaluation

RANDOM = """
import hashlib, os, random, secrets, ssl, subprocess, tempfile, uuid
import numpy
from datetime import datetime
names = {
    'urandom': os.urandom(16).hex(),
    'random': random.getrandbits(128),
    'secrets': secrets.token_hex(16),
    'uuid1': str(uuid.uuid1()),
    'uuid4': str(uuid.uuid4()),
    'numpy': [numpy.random.rand(), numpy.random.default_rng().random()],
    'tempfile': tempfile.mktemp(),
    'openssl': ssl.RAND_bytes(16).hex(),
    'child': subprocess.check_output(['python3', '-c', 'import random; print(random.random())']).decode(),
    'bash': subprocess.run(['bash', '-c', 'echo $RANDOM$RANDOM$RANDOM'], capture_output=True).stdout.decode(),
    'kernel': open('/proc/sys/kernel/random/uuid').read(),
    'host': os.uname().nodename,
}
names
"""

JAVASCRIPT = """
const crypto = require('crypto');
({ math: Math.random(), uuid: crypto.randomUUID(), bytes: crypto.randomBytes(16).toString('hex'),
   web: Array.from(globalThis.crypto?.getRandomValues(new Uint8Array(16)) ?? [Math.random()]).join() })
"""


def test_no_two_clones_share_a_random_number(vms: wasmeval.Evaluator) -> None:
    results = vms.evaluate_batch([Evaluation(RANDOM, tier="vm")] * 6)
    values = [result.value for result in results]
    assert all(result.ok for result in results), [result.error for result in results]
    for name in values[0]:
        assert len({str(value[name]) for value in values}) == len(values), name


def test_nor_in_javascript(vms: wasmeval.Evaluator) -> None:
    results = vms.evaluate_batch([Evaluation(JAVASCRIPT, language="javascript", tier="vm")] * 6)
    values = [result.value for result in results]
    assert all(result.ok for result in results), [result.error for result in results]
    for name in values[0]:
        assert len({str(value[name]) for value in values}) == len(values), name


def test_the_clock_is_right(vms: wasmeval.Evaluator) -> None:
    before = time.time()
    told = vms.evaluate("import time; time.time()", tier="vm").value
    assert before - 5 <= told <= time.time() + 5


def test_nothing_remains_of_another_job(vms: wasmeval.Evaluator) -> None:
    places = "/workspace/x /tmp/x /var/tmp/x /home/user/x"
    script = f"ls -A /workspace /tmp /var/tmp; touch {places}; pgrep -u user -c python3"
    first, second = (vms.evaluate(script, language="bash").stdout for _ in range(2))
    assert first == second
    assert "x" not in first.split()


def test_there_is_no_network(vms: wasmeval.Evaluator) -> None:
    script = (
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1; ls /sys/class/net; curl -sS -m 5 http://192.0.2.1/"
    )
    result = vms.evaluate(script, language="bash")
    assert set(result.stdout.split()) == {"lo"}
    assert result.exit_status == 7


def test_the_job_is_an_ordinary_user(vms: wasmeval.Evaluator) -> None:
    script = (
        "id -u; grep -E '^(CapEff|CapPrm)' /proc/self/status | cut -f2; "
        "touch /usr/x /etc/x /run/x /run/wasmeval/x; ls /run/scratch; "
        "cat /dev/vda > /dev/null; cat /dev/vport*p* > /dev/null; "
        "ls /run/wasmeval > /dev/null; kill -9 1 2; exit 0"
    )
    result = vms.evaluate(script, language="bash")
    assert result.stdout.split() == ["1000", "0000000000000000", "0000000000000000"]
    assert result.stderr.count("Read-only file system") >= 2
    assert result.stderr.count("Permission denied") >= 4
    assert "not permitted" in result.stderr
