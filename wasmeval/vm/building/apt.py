"""What this machine's own apt says: its release, its sources, how it reaches them; and packages it downloads."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wasmeval.errors import SetupError
from wasmeval.vm.building.running import Runner

# Settings of apt that say how to reach a source. The rest is the machine's own business.
_REACHING = re.compile(
    r"Acquire::(?:(?:http|https|ftp|socks)(?:::|$)|Retries$|Check-Valid-Until$|Check-Date$|ForceIPv[46]$)"
)
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of one Debian release, as text for a `.sources` and for a `.list` file; either may be empty."""

    codename: str
    paragraphs: str
    lines: str

    def write(self, folder: Path) -> list[Path]:
        """The files of these sources, written into `folder`, readable by everyone: apt's own user reads them."""
        written = []
        for name, text in (("debian.sources", self.paragraphs), ("debian.list", self.lines)):
            if text:
                path = folder / name
                path.write_text(text, encoding="utf-8")
                path.chmod(0o644)
                written.append(path)
        return written

    @property
    def local(self) -> bool:
        """Whether one of them lies on this machine's own disk."""
        return bool(re.search(r"(?:^|[\s:])(?:file|copy):/", f"{self.paragraphs}\n{self.lines}"))


def host_sources(etc: Path = Path("/etc")) -> Sources:
    """The sources of this machine's own Debian release, without those of other vendors.

    Raises SetupError where this machine is no Debian, or has no source of its release.
    """
    codename = _codename(etc / "os-release")
    paragraphs, lines = [], []
    for path in [etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            paragraphs += [part for part in _paragraphs(text) if _is_wanted_paragraph(part, codename)]
        elif path.suffix == ".list":
            lines += [line for line in text.splitlines() if _is_wanted_line(line, codename)]
    if not paragraphs and not lines:
        raise SetupError(
            f"{etc / 'apt'} names no source of Debian {codename}, from which the image's packages would come"
        )
    return Sources(codename, "\n".join(paragraphs), "".join(f"{line}\n" for line in lines))


def _codename(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SetupError(f"{path} does not say which Debian this machine is: {error.strerror}") from error
    values: dict[str, str] = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', text))
    codename = values.get("VERSION_CODENAME", "")
    if values.get("ID") != "debian" or not re.fullmatch(r"[a-z]+", codename):
        name = values.get("PRETTY_NAME", "an unknown system")
        raise SetupError(f"VM images are built on Debian, from its own packages; this machine is {name}")
    return codename


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a deb822 file, without comments."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for part in re.split(r"\n[ \t]*\n", kept):
        if part.strip():
            yield part.strip("\n") + "\n"


def _is_wanted_paragraph(paragraph: str, codename: str) -> bool:
    fields = {
        name.lower(): value.split()
        for name, value in re.findall(r"(?m)^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", paragraph)
    }
    if "no" in [word.lower() for word in fields.get("enabled", [])]:
        return False
    return (
        "deb" in fields.get("types", [])
        and "main" in fields.get("components", [])
        and any(_is_of(suite, codename) for suite in fields.get("suites", []))
    )


def _is_wanted_line(line: str, codename: str) -> bool:
    found = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+(.*)", line)
    if not found or found[1].startswith("cdrom:"):
        return False
    return "main" in found[3].split() and _is_of(found[2], codename)


def _is_of(suite: str, codename: str) -> bool:
    """Whether `suite` is the release itself, its updates or its security: newer suites are not mixed in."""
    return suite.strip("/") in {
        codename,
        f"{codename}-updates",
        f"{codename}-security",
        f"{codename}/updates",
    }


def reaching_options(runner: Runner) -> list[str]:
    """How this machine's apt reaches its sources (proxies, certificates), as lines of an apt.conf."""
    options = []
    for line in runner.output(["apt-config", "dump"]).splitlines():
        name, _, value = line.partition(" ")
        if _REACHING.match(name) and value not in {"", '"";'}:
            options.append(line)
    return options


class Downloads:
    """An apt of its own, in a folder: downloads packages without root, and touches nothing of the machine's apt.

    `update` first; then `dependency` and `unpack`, in any order. Each raises SetupError when a program fails.
    """

    def __init__(self, folder: Path, sources: Sources, runner: Runner) -> None:
        self._folder = folder
        self._runner = runner
        for name in ("etc/sources.list.d", "state/lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True)
        sources.write(folder / "etc/sources.list.d")
        (folder / "status").touch()
        settings = [
            f'Dir::Etc::SourceList "{folder}/etc/none";',
            f'Dir::Etc::SourceParts "{folder}/etc/sources.list.d";',
            f'Dir::State "{folder}/state";',
            f'Dir::State::status "{folder}/status";',
            f'Dir::Cache "{folder}/cache";',
            # Its user could not write here, and downloads are checked by their digests either way.
            'APT::Sandbox::User "root";',
            'Acquire::Languages "none";',
            # Hooks of the machine's own apt tell others of updates.
            "#clear APT::Update::Pre-Invoke;",
            "#clear APT::Update::Post-Invoke;",
            "#clear APT::Update::Post-Invoke-Success;",
        ]
        self._config = folder / "apt.conf"
        self._config.write_text("\n".join(settings) + "\n", encoding="utf-8")

    def update(self) -> None:
        """Fetch the lists of packages."""
        self._run("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")

    def dependency(self, package: str, pattern: str) -> str:
        """The package that `package` depends on and whose name matches `pattern`: what a metapackage stands for."""
        text = self._run("apt-cache", "depends", "--important", package)
        for line in text.splitlines():
            name = line.partition("Depends: ")[2].strip()
            if re.fullmatch(pattern, name) and _PACKAGE_NAME.fullmatch(name):
                return name
        raise SetupError(f"the package {package} of this machine's apt sources depends on no {pattern}")

    def unpack(self, packages: Sequence[str], folder: Path) -> dict[str, str]:
        """Download `packages` and unpack their files into `folder`; the version of each."""
        archives = self._folder / "packages"
        self._run("apt-get", "-qq", "download", *packages, cwd=archives)
        versions = {}
        for archive in sorted(archives.glob("*.deb")):
            name, version = self._runner.output(
                ["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(archive)]
            ).split()
            versions[name] = version
            self._runner.output(["dpkg-deb", "--extract", str(archive), str(folder)])
        shutil.rmtree(archives)
        archives.mkdir()
        return versions

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        # APT_CONFIG is read first, so that what it clears would come back; -c comes last.
        return self._runner.output([argv[0], "-c", str(self._config), *argv[1:]], cwd=cwd)
