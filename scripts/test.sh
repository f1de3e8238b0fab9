#!/usr/bin/env bash
# Every test of the project, a thin door to `cargo xtask test`; a part of a test's name selects some.
# Installs what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh
quiet=--quiet
[ -t 2 ] && quiet=
exec cargo run $quiet --package xtask -- test "$@"
