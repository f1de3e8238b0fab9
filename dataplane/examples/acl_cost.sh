#!/bin/sh
# What 10,000 rules cost, in instructions: per 64-byte echo of an established connection, and per new
# connection (handshake, knock and accept). Arguments: sets of support/rules.rs; all without any.
set -eu
cd "$(dirname "$0")/../.."
cargo build --quiet --release -p ix-dataplane --example echo_cost
count() {
    valgrind --tool=callgrind --toggle-collect=measured --callgrind-out-file=/dev/null \
        target/release/examples/echo_cost "$@" 2>&1 | sed -n 's/.*Collected : //p'
}
# The second run of each pair has 1,024 messages, or connections, more.
established() { echo $((($(count 16 2048 1 "$@") - $(count 16 1024 1 "$@")) / 1024)); }
opened() { echo $((($(count 2048 1 1 "$@") - $(count 1024 1 1 "$@")) / 1024)); }
echo_none=$(established)
open_none=$(opened)
echo "no rules: $echo_none per echo, $open_none per new connection"
for set in ${*:-hosts random dense last worst limits}; do
    echo_with=$(established "$set")
    open_with=$(opened "$set")
    echo "$set: +$((echo_with - echo_none)) per echo, +$((open_with - open_none)) per new connection"
done
