#!/bin/sh
# Stands in QEMU's place in tests/launcher.rs: does what $FAKE_QEMU says; $serial is its serial log.
for a; do case $a in file,id=serial,path=*) serial=${a#*path=};; esac; done
eval "$FAKE_QEMU"
