#!/usr/bin/env bash
# Builds IX and boots it in QEMU, with the kv application on 127.0.0.1:11211 unless told otherwise:
# a thin door to `ixcp run`, whose options it takes (--help lists them, and builds nothing but what prints them). Installs what is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"
quiet=--quiet
[ -t 2 ] && quiet=
# Built there, where the toolchain and the flags are pinned; run here, where paths are meant.
(cd "$here" && cargo build $quiet --package xtask)
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$here/$target ;; esac
exec "$target/debug/xtask" run "$@"
