#!/bin/sh
# Instructions per 64-byte echo: see echo_cost.rs. Arguments: CONNECTIONS BATCH [offload]
set -eu
cd "$(dirname "$0")/../.."
cargo build --quiet --release -p ix-dataplane --example echo_cost
count() {
    valgrind --tool=callgrind --toggle-collect=measured --callgrind-out-file="${OUT:-/dev/null}" \
        target/release/examples/echo_cost "$@" 2>&1 | sed -n 's/.*Collected : //p'
}
few=$(count "$1" 1024 "$2" ${3:-})
many=$(count "$1" 5120 "$2" ${3:-})
echo "$1 connections, batch $2 ${3:-software checksums}: $(((many - few) / 4096)) instructions per RPC"
