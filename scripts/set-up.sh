#!/usr/bin/env bash
# What the other scripts have in common: where to build, and what a machine needs. They source it, from the top folder.

# keepalived, nft and ip are in sbin, which an ordinary user's PATH lacks on Debian.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vyos-aws-vipa/target}"
export VIPA_AWS_VENV="${VIPA_AWS_VENV:-$CARGO_TARGET_DIR/venv-aws}"

have() { command -v "$1" >/dev/null 2>&1; }

heading() { printf '\n==> %s\n' "$1"; }

python_makes_environments() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# namespaces: whether this user may have the namespaces that the routers live in.
namespaces() {
    unshare --user --map-root-user --net --mount --pid --fork --mount-proc -- true 2>/dev/null
}

# Prints the Debian packages that are missing here.
missing_packages() {
    have cc || echo gcc libc6-dev
    python_makes_environments || echo python3 python3-venv
    # Debian's and Ubuntu's keepalived.service starts only where /etc/keepalived/keepalived.conf is not empty, and
    # nftables.service is off: the two packages leave the machine's own network alone.
    have keepalived || echo keepalived
    have nft || echo nftables
    have ip || echo iproute2
    { have unshare && have nsenter; } || echo util-linux
}

# apt PACKAGE...: installs them; what went wrong is printed.
apt() {
    local as_root=() get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300) said
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        # Without a terminal nobody can type a password: fail instead of waiting for one.
        [ -t 0 ] || as_root=(sudo -n)
    fi
    install() { said=$("${as_root[@]}" "${get[@]}" install --yes --no-install-recommends "$@" 2>&1); }
    # The package lists may be old, or not there at all.
    install "$@" || { said=$("${as_root[@]}" "${get[@]}" update 2>&1) && install "$@"; } ||
        { printf '%s\n' "$said" >&2 && return 1; }
}

# set_up PACKAGES: installs them, separated by white space; none if there are none.
set_up() {
    local packages=()
    read -ra packages <<<"${1//$'\n'/ }"
    [ ${#packages[@]} -gt 0 ] || return 0
    heading "installing ${packages[*]}"
    if ! have apt-get; then
        echo "no apt-get on this machine: please install them yourself" >&2
    elif [ "$(id -u)" -ne 0 ] && ! have sudo; then
        echo "please run as root: apt-get install ${packages[*]}" >&2
    else
        [ "$(id -u)" -eq 0 ] || echo "$0 needs these packages; sudo is for apt-get alone"
        apt "${packages[@]}" || true
    fi
}

# need_cargo: ends the script where there is no Rust toolchain, and sees to it that cargo builds what is here.
need_cargo() {
    local clone=$CARGO_TARGET_DIR/.clone
    if ! have cargo; then
        echo "$0: no cargo here; install a Rust toolchain (https://rustup.rs) and run this again" >&2
        exit 1
    fi
    # cargo goes by the times of files: what another clone has built there since looks new to it, and has the paths of that
    # one in it.
    if [ "$(cat "$clone" 2>/dev/null)" != "$PWD" ]; then
        mkdir -p "$CARGO_TARGET_DIR"
        find src tests -name '*.rs' -exec touch {} +
        printf '%s\n' "$PWD" >"$clone"
    fi
}
