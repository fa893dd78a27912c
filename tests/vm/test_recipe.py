"""What an image may be asked to be made of, and where its packages come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wasmeval.errors import InvalidArgument, SetupError
from wasmeval.vm.building import apt, tools
from wasmeval.vm.building.recipe import BUILD_PACKAGES, DEBIAN_PACKAGES, PYTHON_PACKAGES, Recipe
from wasmeval.vm.building.wheels import platforms


def test_a_plain_recipe_is_the_default_image() -> None:
    assert Recipe().debian_packages == DEBIAN_PACKAGES
    assert Recipe().pip_arguments == PYTHON_PACKAGES


def test_packages_are_added(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("polars\n")
    recipe = Recipe(
        packages=("gcc=4:12.2", "libxml2"),
        python_packages=("scipy>=1.15",),
        requirements=requirements,
        build_essential=True,
    )
    assert recipe.debian_packages == (*DEBIAN_PACKAGES, *BUILD_PACKAGES, "gcc=4:12.2", "libxml2")
    assert recipe.pip_arguments == ("scipy>=1.15", "--requirement", str(requirements))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"packages": ("--yes",)}, "packages: '--yes' is no name of a Debian package"),
        ({"packages": ("a,b",)}, "packages: 'a,b'"),
        ({"packages": ("./local.deb",)}, "packages: './local.deb'"),
        ({"packages": ("Foo",)}, "packages: 'Foo'"),
        ({"packages": ("gcc; reboot",)}, "packages: "),
        ({"python_packages": ("--index-url=x",)}, "pip_package: '--index-url=x' is no requirement"),
        ({"python_packages": ("",)}, "pip_package: "),
        ({"requirements": Path("/not/there")}, "pip: there is no file /not/there"),
        ({"oci": Path("/not/there")}, "oci: there is no file /not/there"),
        ({"oci": Path("/etc/passwd"), "packages": ("gcc",)}, "oci: an OCI image is taken as it is"),
        ({"memory_bytes": 1 << 20}, "memory: 1 MiB is not between 256 and 65536 MiB"),
        ({"disk_bytes": 1 << 50}, "disk: 1073741824 MiB is not between"),
    ],
)
def test_what_cannot_be_built_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Recipe(**given)
    assert str(caught.value).startswith(message)


def put_etc(etc: Path, release: str = "ID=debian\nVERSION_CODENAME=bookworm\n", **files: str) -> Path:
    (etc / "apt/sources.list.d").mkdir(parents=True)
    (etc / "os-release").write_text(release)
    for name, text in files.items():
        (etc / "apt/sources.list.d" / name.replace("__", ".")).write_text(text)
    return etc


def test_sources_are_the_machine_s_own_of_its_release(tmp_path: Path) -> None:
    etc = put_etc(
        tmp_path,
        debian__sources="# of ours\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\n\nTypes: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\n"
        "Components: main contrib\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n",
        vendor__sources="Types: deb\nURIs: http://vendor.test\nSuites: nodistro\nComponents: main\n",
        off__sources="Enabled: no\nTypes: deb\nURIs: http://off.test\nSuites: bookworm\nComponents: main\n",
        source__sources="Types: deb-src\nURIs: http://src.test\nSuites: bookworm\nComponents: main\n",
        newer__sources="Types: deb\nURIs: http://new.test\nSuites: bookworm-backports\nComponents: main\n",
        docker__list="deb [arch=amd64 signed-by=/k.gpg] http://docker.test bookworm stable\n",
    )
    (etc / "apt/sources.list").write_text(
        "# deb http://old.test bookworm main\ndeb [trusted=yes] http://more.test bookworm main\n"
        "deb cdrom:[x]/ bookworm main\ndeb-src http://more.test bookworm main\n"
    )
    sources = apt.host_sources(etc)
    assert sources.codename == "bookworm"
    assert sources.paragraphs.count("URIs:") == 2
    assert "mirror.test/debian" in sources.paragraphs
    assert " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n" in sources.paragraphs
    assert sources.lines == "deb [trusted=yes] http://more.test bookworm main\n"
    assert not sources.local


def test_sources_on_this_machine_s_disk_are_told(tmp_path: Path) -> None:
    etc = put_etc(tmp_path, debian__list="deb file:/srv/mirror bookworm main\n")
    assert apt.host_sources(etc).local


def test_a_machine_that_is_no_debian_is_told(tmp_path: Path) -> None:
    etc = put_etc(tmp_path, 'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n')
    with pytest.raises(SetupError, match="this machine is Fedora Linux 43"):
        apt.host_sources(etc)


def test_a_machine_without_sources_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="names no source of Debian bookworm"):
        apt.host_sources(put_etc(tmp_path))


def test_wheels_are_of_the_image_s_c_library_or_older() -> None:
    names = platforms((2, 36), "x86_64")
    assert names[0] == "manylinux_2_36_x86_64"
    assert "manylinux_2_17_x86_64" in names
    assert "manylinux2014_x86_64" in names
    assert not any("2_37" in name for name in names)


def test_a_program_that_is_missing_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools, "find", lambda program: "" if program in {"mkfs.erofs", "bwrap"} else "/bin/x")
    with pytest.raises(SetupError) as caught:
        tools.require(["mmdebstrap", "mkfs.erofs", "bwrap"])
    assert str(caught.value) == (
        "building a VM image needs mkfs.erofs, bwrap, which this machine does not have; "
        "sudo apt-get install bubblewrap erofs-utils"
    )
