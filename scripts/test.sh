#!/usr/bin/env bash
# Every test of the project: a thin door to `cargo xtask test`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --workspace
