# What both scripts need before cargo can build anything: a linker. Sourced, not run.
if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust (rustup) first" >&2
    exit 1
fi
if ! command -v cc >/dev/null 2>&1 || ! command -v strip >/dev/null 2>&1; then
    packages="gcc libc6-dev binutils"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "a C compiler (as linker) is missing: install $packages" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root="sudo -n"
        $as_root true 2>/dev/null || { echo "as root: apt-get install $packages" >&2; exit 1; }
    fi
    echo "installing Debian packages: $packages" >&2
    $as_root apt-get update -q >/dev/null
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $packages >/dev/null
fi
