#!/bin/sh
# What it costs to move a flow group, in instructions of both cores together, by what is in it and in the other groups.
set -eu
cd "$(dirname "$0")/../.."
cargo build --quiet --release -p ix-dataplane --example move_cost
count() {
    valgrind --tool=callgrind --toggle-collect='*measured*' --callgrind-out-file=/dev/null \
        target/release/examples/move_cost "$@" 2>&1 | sed -n 's/.*Collected : //p'
}
echo "empty: $(count 0)"
echo "2000 connections: $(count 2000)"
echo "2000 connections in each group: $(count 2000 full)"
