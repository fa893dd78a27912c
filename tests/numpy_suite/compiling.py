"""Runs in an instance: compiles the modules in `packages.zip`, for this interpreter, into `compiled.zip`."""

import importlib._bootstrap_external
import importlib.util
import zipfile


def compiled(source, name):
    code = compile(source, name, "exec", dont_inherit=True)
    digest = importlib.util.source_hash(source)
    return importlib._bootstrap_external._code_to_hash_pyc(code, digest, False)


with zipfile.ZipFile("packages.zip") as packages, zipfile.ZipFile("compiled.zip", "w") as target:
    for name in packages.namelist():
        content = packages.read(name)
        if name.endswith(".py"):
            target.writestr(f"{name}c", compiled(content, name))
        else:
            target.writestr(name, content)
