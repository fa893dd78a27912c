# Run by mmdebstrap outside of the new root, as its root: `sh debian.sh ROOT STEP`, and `... pack FILE OPTION...`.
set -eu
root=$1 step=$2
stage=$(dirname "$0")
inside=$root/.wasmeval
# The machine's own environment says things that do not hold in there.
run() {
    chroot "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$@"
}
say() { echo "wasmeval: $*"; }

case $step in
python)
    mkdir -p "$inside"
    cp "$stage/inside.py" "$inside/"
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    if [ -e "$stage/want-wheels" ]; then
        say "python $(run python3 -c 'import os, sys
print(*sys.version_info[:2], *os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")[:2])')"
        # Whoever runs us puts them there, or ends us.
        until [ -e "$stage/wheels/complete" ]; do sleep 0.1; done
        say "stage installing Python packages"
        cp -r "$stage/wheels" "$inside/"
        rm "$inside/wheels/complete"
        run sh -c 'python3 -m pip install --quiet --no-index --no-deps --no-cache-dir --no-compile /.wasmeval/wheels/*.whl'
        run sh -c 'python3 -m compileall -q -j 0 /usr/local/lib/python3*/dist-packages' || :
    fi
    ;;
finish)
    say "stage finishing"
    run python3 -I -S -B /.wasmeval/inside.py finish
    # What Python knows of fonts takes it seconds to find out, many under emulation.
    run env HOME=/home/user python3 -I -B -c 'import matplotlib.font_manager' 2>/dev/null || :
    run chown -R 1000:1000 /home/user
    run python3 -I -B /.wasmeval/inside.py facts >"$inside/facts.json"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/log/* "$root"/var/cache/debconf/*-old \
        "$root"/var/lib/dpkg/*-old "$root"/root/.cache "$root"/var/cache/ldconfig/*
    # Where packages came from is this machine's, and may hold its passwords.
    rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/apt.conf.d/99mmdebstrap \
        "$root"/etc/apt/auth.conf "$root"/etc/apt/auth.conf.d/* "$root"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
    ;;
pack)
    say "stage packing the root"
    # A view of it without what is mounted below.
    mkdir -p "$inside/tree"
    mount --bind "$root" "$inside/tree"
    out=$3
    shift 3
    mkfs.erofs "$@" --exclude-path=.wasmeval "$out" "$inside/tree"
    umount "$inside/tree"
    ;;
esac
