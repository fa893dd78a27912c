#!/usr/bin/env bash
# Install Debian's redis-server for the tests, as root, without starting it as a service. Nothing when it is there.
set -euo pipefail
command -v redis-server >/dev/null && exit

# Maintainer scripts ask this file whether a service may start: 101 says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
install=(apt-get install -qq -y --no-install-recommends redis-server)
# A fresh machine often has no package lists, or old ones.
"${install[@]}" || { apt-get update -qq && "${install[@]}"; }
