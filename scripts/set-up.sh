#!/usr/bin/env bash
# The shared part of the other scripts: the build directory, and what a machine needs. They source it in the top directory.

# keepalived, nft and ip are in sbin, which an ordinary user's PATH lacks on Debian.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/vyos-aws-vipa/target}"
export VIPA_AWS_VENV="${VIPA_AWS_VENV:-$CARGO_TARGET_DIR/venv-aws}"

# The memory of the largest compiler process of a first build, in MB: rustc on the AWS SDK, optimised and not. README.md
# has the same figures.
memory_of_release=9200
memory_of_tests=7300

have() { command -v "$1" >/dev/null 2>&1; }

# rust-toolchain.toml names a version. If rustup has that version only under another name, such as stable, it would
# download it again.
if have rustup; then
    pinned=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
    toolchains=$(rustup toolchain list)
    if [[ $toolchains != *"$pinned-"* ]]; then
        while read -r toolchain _; do
            if [[ $(rustc "+$toolchain" --version 2>/dev/null) == "rustc $pinned "* ]]; then
                export RUSTUP_TOOLCHAIN=$toolchain
            fi
        done <<<"$toolchains"
    fi
    unset pinned toolchains toolchain
fi

# cargo_tool NAME VERSION: builds this version of a program from crates.io and adds it to PATH. It is built without
# optimisation, which takes a fraction of the time, and kept in $CARGO_TARGET_DIR/tools.
cargo_tool() {
    local root=$CARGO_TARGET_DIR/tools/$1-$2
    if [ ! -x "$root/bin/$1" ]; then
        heading "installing $1 $2"
        CARGO_PROFILE_DEV_DEBUG=false CARGO_TARGET_DIR=$root/target \
            cargo install --locked --debug --no-track --root "$root" --version "=$2" "$1" || return
        rm -r "$root/target"
    fi
    PATH=$root/bin:$PATH
}

heading() { printf '\n==> %s\n' "$1"; }

python_makes_environments() { have python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# namespaces: succeeds if this user may create the namespaces that the routers run in.
namespaces() {
    unshare --user --map-root-user --net --mount --pid --fork --mount-proc -- true 2>/dev/null
}

# Prints the Debian packages that are missing here.
missing_packages() {
    have cc || echo gcc libc6-dev
    python_makes_environments || echo python3 python3-venv
    # Debian's and Ubuntu's keepalived.service starts only if /etc/keepalived/keepalived.conf is not empty, and
    # nftables.service is disabled: the two packages do not change the machine's own network.
    have keepalived || echo keepalived
    have nft || echo nftables
    have ip || echo iproute2
    { have unshare && have nsenter; } || echo util-linux
}

# apt PACKAGE...: installs packages; prints the output if that fails.
apt() {
    local as_root=() get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300) output
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        # Without a terminal no password can be entered: fail instead of waiting for one.
        [ -t 0 ] || as_root=(sudo -n)
    fi
    install() { output=$("${as_root[@]}" "${get[@]}" install --yes --no-install-recommends "$@" 2>&1); }
    # The package lists may be old or missing.
    install "$@" || { output=$("${as_root[@]}" "${get[@]}" update 2>&1) && install "$@"; } ||
        { printf '%s\n' "$output" >&2 && return 1; }
}

# set_up PACKAGES: installs packages, separated by white space; the list may be empty.
set_up() {
    local packages=()
    read -ra packages <<<"${1//$'\n'/ }"
    [ ${#packages[@]} -gt 0 ] || return 0
    heading "installing ${packages[*]}"
    if ! have apt-get; then
        echo "this machine has no apt-get: install these packages yourself" >&2
    elif [ "$(id -u)" -ne 0 ] && ! have sudo; then
        echo "run as root: apt-get install ${packages[*]}" >&2
    else
        [ "$(id -u)" -eq 0 ] || echo "$0 needs these packages; sudo is used only for apt-get"
        apt "${packages[@]}" || true
    fi
}

# available_memory: prints the memory that a build can use, in MB, and the source of that limit: the machine's memory and
# swap, or a control group (of a container or a service) with a lower limit.
available_memory() {
    local swap least by=/proc/meminfo controllers path root directory names limit used cache more room
    swap=$(awk '/^SwapFree:/ { printf "%.0f", $2 * 1024 }' /proc/meminfo)
    least=$(awk '/^(MemAvailable|SwapFree):/ { kib += $2 } END { printf "%.0f", kib * 1024 }' /proc/meminfo)
    while IFS=: read -r _ controllers path; do
        case ,$controllers, in
            ,,) root=/sys/fs/cgroup names=(memory.max memory.current '') ;;
            *,memory,*) root=/sys/fs/cgroup/memory names=(memory.limit_in_bytes memory.usage_in_bytes total_) ;;
            *) continue ;;
        esac
        # The path is outside a container's view: its own group is then the root.
        [[ $path != *..* ]] || path=/
        directory=$root${path%/}
        while :; do
            limit=$(cat "$directory/${names[0]}" 2>/dev/null) || limit=max
            if [ "$limit" != max ]; then
                used=$(cat "$directory/${names[1]}")
                # The kernel drops these pages before it kills a process.
                cache=$(awk -v prefix="${names[2]}" '$1 == prefix "active_file" || $1 == prefix "inactive_file" { sum += $2 }
                    END { printf "%.0f", sum }' "$directory/memory.stat")
                more=$(cat "$directory/memory.swap.max" 2>/dev/null) || more=0
                if [ "$more" = max ] || [ "$more" -gt "$swap" ]; then more=$swap; fi
                room=$((limit - used + cache + more))
                if [ $room -lt "$least" ]; then least=$room by=$directory/${names[0]}; fi
            fi
            [ "$directory" != "$root" ] || break
            directory=${directory%/*}
        done
    done </proc/self/cgroup
    echo "$((least / 1000000)) $by"
}

# lacks_memory BUILD: succeeds and prints the reason if the first build (`release` or `tests`) would run out of memory;
# fails if the memory suffices. Once the AWS SDK is built, the rest needs little.
lacks_memory() {
    local needed available by built=$CARGO_TARGET_DIR/debug
    needed=$memory_of_tests
    [ "$1" != release ] || { needed=$memory_of_release built=$CARGO_TARGET_DIR/release; }
    if [ -n "${VIPA_BUILD_ANYWAY-}" ] || compgen -G "$built/deps/libaws_sdk_ec2-*.rlib" >/dev/null; then return 1; fi
    read -r available by <<<"$(available_memory)"
    [ "$available" -lt $needed ] || return 1
    awk -v needed=$needed -v available="$available" -v by="$by" 'BEGIN {
        printf "the first build needs %.1f GB of memory in one process (rustc on the AWS SDK), and %.1f GB are available (%s)\n",
            needed / 1000, available / 1000, by }'
}

# need_memory BUILD: ends the script if lacks_memory succeeds.
need_memory() {
    local reason
    reason=$(lacks_memory "$1") || return 0
    cat >&2 <<END
$0: $reason
Stop other programs, raise the container's limit, or add swap:
    sudo fallocate --length 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile
To build without this check: VIPA_BUILD_ANYWAY=1 $0
END
    exit 1
}

# need_cargo: ends the script if there is no Rust toolchain, and makes cargo build the sources of this clone.
need_cargo() {
    local clone=$CARGO_TARGET_DIR/.clone
    if ! have cargo; then
        echo "$0: cargo is not installed; install a Rust toolchain (https://rustup.rs) and run this again" >&2
        exit 1
    fi
    # cargo compares modification times: it would take a later build of another clone for one of these sources, and its
    # paths are those of the other clone.
    if [ "$(cat "$clone" 2>/dev/null)" != "$PWD" ]; then
        mkdir -p "$CARGO_TARGET_DIR"
        find src tests -name '*.rs' -exec touch {} +
        printf '%s\n' "$PWD" >"$clone"
    fi
}
