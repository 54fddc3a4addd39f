#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Installs the Debian packages that are missing: `deps.sh run` what building and running need, `deps.sh test`
# what the tests need on top, `deps.sh bench` what comparing with other servers needs.  It asks dpkg first and
# touches apt only when something is missing.  On a system without apt it prints the list and fails only if a
# tool that it knows how to look for is absent.
set -euo pipefail

run_packages=(gcc make libc6-dev pkg-config libxxhash-dev libedit-dev liblzma-dev libcrypt-dev
    libinih-dev libsystemd-dev libmicrohttpd-dev)
test_packages=(g++ libcmocka-dev libmemcached-dev clang libclang-rt-dev clang-tidy doxygen
    python3 python3-pytest python3-hypothesis python3-prometheus-client tshark xz-utils shellcheck pyflakes3 man-db
    openssl strace systemd nodejs mypy libuv1-dev libevent-dev cmake abigail-tools libhiredis-dev)
bench_packages=(python3 redis-server memcached)

wanted=("${run_packages[@]}")
case "${1:-}" in
    run) ;;
    test) wanted+=("${test_packages[@]}") ;;
    bench) wanted+=("${bench_packages[@]}") ;;
    list) printf '%s\n' "${run_packages[@]}" "${test_packages[@]}"; exit 0 ;;
    *) echo "usage: deps.sh run|test|bench|list" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    {
        echo "This is not a Debian system, so nothing is installed by itself."
        echo "Needed, by their Debian names (install your system's equivalents):"
        printf '  %s\n' "${wanted[@]}"
        echo "Then build with: make all; test with: tests/support/run-tests"
    } >&2
    exit 1
fi

missing=()
for package in "${wanted[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Missing packages, and neither root nor sudo to install them with: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# Debian starts a server as soon as it is installed; those that are measured are started by the measurement alone.
policy=/usr/sbin/policy-rc.d
if [ "$1" = bench ] && [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
    "${as_root[@]}" chmod 755 "$policy"
fi

echo "Installing: ${missing[*]}"
"${as_root[@]}" apt-get update -q </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null

if [ "$1" = bench ] && command -v systemctl >/dev/null; then
    for service in redis-server memcached; do
        [[ " ${missing[*]} " != *" $service "* ]] || "${as_root[@]}" systemctl --quiet disable "$service" || true
    done
fi
