#!/usr/bin/env bash
# Builds IX and boots it in QEMU, with the kv application on 127.0.0.1:11211 unless told otherwise:
# a thin door to `ixcp run`, whose options it takes (--help lists them). Installs what is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"
quiet=--quiet
[ -t 2 ] && quiet=
exec cargo run $quiet --manifest-path "$here/Cargo.toml" --package xtask -- run "$@"
