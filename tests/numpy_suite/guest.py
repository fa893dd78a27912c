"""Runs in an instance: the tests of one file, or a part of them, under pytest.

Inputs: `root`, the mounted folder; `file`, below `site`; `part` of `parts`; `left_out`, nodes of the tree of tests that
are not to run; `done`, tests that have run already. Each event is a line of JSON on stdout, after a mark that no test
prints.
"""

import importlib
import json
import os
import re
import sys
import types
from pathlib import Path

sys.path.insert(0, "/workspace/packages.zip")

import numpy.testing
import numpy.testing._private.utils
import pytest

DONE = frozenset(done)
SITE = Path(root) / "site"
# Of pytest's own plugins: what needs a file that is not there, threads, or a terminal.
WITHOUT = ("cacheprovider", "faulthandler", "logging", "pastebin", "stepwise", "terminal", "threadexception")


def tell(*event):
    sys.__stdout__.write("\x1e" + json.dumps(event) + "\n")
    sys.__stdout__.flush()


def find_tests():
    """Let the image's packages find their `tests`, which are not in the image."""
    for tests in sorted(SITE.glob("numpy/**/tests")):
        folder = tests.relative_to(SITE).parent
        try:
            package = importlib.import_module(".".join(folder.parts))
        except ImportError:
            continue  # not in the image, nor are its tests among those that run
        package.__path__.append(str(SITE / folder))


class Absent(types.ModuleType):
    """Can be imported, as some test files do at their top; what takes anything from it fails."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*arguments):
            raise ModuleNotFoundError(f"No module named {self.__name__!r}", name=self.__name__)

        return missing


class Reporter:
    """Chooses the tests, and tells what came of each."""

    def pytest_configure(self, config):
        # Any other style parses the whole test file for each failure, which takes seconds.
        config.option.tbstyle = "native"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        length = -(-len(items) // parts)
        chosen = items[part * length : (part + 1) * length]
        count = len(items)
        items[:] = [item for item in chosen if not self.is_left_out(item.nodeid)]
        tell("collected", count, [item.nodeid for item in items])

    def is_left_out(self, test):
        if test in DONE:
            return True
        if any(test.startswith(node) and test[len(node) :][:1] in {"", ":", "["} for node in left_out):
            tell("left out", test)
            return True
        return False

    def pytest_collectreport(self, report):
        if not report.passed:
            tell("skipped" if report.skipped else "failed", report.nodeid, str(report.longrepr)[-2000:], 0.0)

    def pytest_runtest_logstart(self, nodeid):
        tell("begun", nodeid)
        self.outcome, self.message, self.seconds = "passed", "", 0.0

    def pytest_runtest_logreport(self, report):
        self.seconds += report.duration
        if report.failed:
            self.outcome, self.message = "failed", text_of(report)
        elif self.outcome == "passed":
            self.outcome = outcome_of(report)
            self.message = "" if self.outcome == "passed" else str(report.longrepr)[-300:]

    def pytest_runtest_logfinish(self, nodeid):
        tell(self.outcome, nodeid, self.message, round(self.seconds, 3))


def outcome_of(report):
    is_known = hasattr(report, "wasxfail")
    if report.skipped:
        return "known to NumPy" if is_known else "skipped"
    return "passed"


def text_of(report):
    crash = getattr(report.longrepr, "reprcrash", None)
    where = f"{Path(crash.path).name}:{crash.lineno}: {crash.message}" if crash else str(report.longrepr)
    return where[:2000]


# NumPy's tests skip what Pyodide's NumPy cannot do; what ours cannot do is told by name.
numpy.testing.IS_WASM = numpy.testing._private.utils.IS_WASM = False
os.environ["NPY_AVAILABLE_MEM"] = memory
# pytest asks whose its temporary folders are: nobody knows.
os.getuid = lambda: -1
# They do without ctypes, but only while it cannot be imported.
importlib.import_module("numpy._core._internal")
importlib.import_module("numpy.ctypeslib")
for name in re.findall("^(?:import|from) (ctypes|mmap)", (SITE / file).read_text(), re.MULTILINE):
    sys.modules[name] = Absent(name)
find_tests()
os.chdir("/tmp")
options = ["-c", f"{root}/pytest.ini", "--rootdir", str(SITE)]
options += ["-o", "addopts=", "-o", "consider_namespace_packages=true"]
options += ["--import-mode=importlib", "--assert=plain", "--capture=sys"]
for plugin in WITHOUT:
    options += ["-p", f"no:{plugin}"]
status = pytest.main([*options, str(SITE / file)], plugins=[Reporter()])
tell("complete", int(status))
