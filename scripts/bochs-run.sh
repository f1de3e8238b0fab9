#!/usr/bin/env bash
# Builds IX and boots it in Bochs, which has Intel's VT-x: a thin door to `cargo xtask bochs-run`, whose options it takes
# (--help lists them). Fetches Bochs into build/bochs, without root.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
. "$here/scripts/common.sh"
cd "$here"
quiet=--quiet
[ -t 2 ] && quiet=
exec cargo run $quiet --package xtask -- bochs-run "$@"
