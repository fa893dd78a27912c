#!/usr/bin/env bash
# Install what the VM tier needs from Debian, as root, and build its default image with the wasmeval of .venv, or the
# one that PATH has. Nothing where all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

# A program, and the package that has it.
needed=(
    qemu-system-x86_64:qemu-system-x86
    bwrap:bubblewrap
    mmdebstrap:mmdebstrap
    mkfs.erofs:erofs-utils
    mke2fs:e2fsprogs
    debugfs:e2fsprogs
    newuidmap:uidmap
)
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=()
for each in "${needed[@]}"; do
    command -v "${each%%:*}" >/dev/null || missing+=("${each##*:}")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "the VM tier needs programs that are missing: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    install=(apt-get install -qq -y --no-install-recommends "${missing[@]}")
    # A fresh machine often has no package lists, or old ones.
    "${install[@]}" >/dev/null || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi

wasmeval=.venv/bin/wasmeval
[ -x "$wasmeval" ] || wasmeval=wasmeval
if ! "$wasmeval" vm list --json | grep -q '"name": "default"'; then
    "$wasmeval" vm build
fi
