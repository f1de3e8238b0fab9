#!/bin/sh
# Instructions per packet at batch 64 by callgrind: receive = poll + replenish, transmit = push and
# kick + reclaim. Prints one line per case. The model's work is left out.
set -eu
cd "$(dirname "$0")/../.."
command -v valgrind >/dev/null || { echo "SKIPPED: valgrind is not installed"; exit 0; }
rounds=${1:-300}
cargo build --quiet --release -p ix-ixgbe --example cost
for case in ${2:-one sum two}; do
    line="$case:"
    for part in poll replenish push_and_kick reclaim; do
        count=$(timeout 300 valgrind --tool=callgrind --callgrind-out-file=/dev/null \
            --collect-atstart=no --toggle-collect="cost::$part" \
            target/release/examples/cost "$rounds" "$case" 2>&1 |
            sed -n 's/.*Collected : \([0-9]*\).*/\1/p')
        line="$line $part $(awk "BEGIN { printf \"%.1f\", $count / (64 * $rounds) }")"
    done
    echo "$line"
done
target/release/examples/cost "$rounds" one
