#!/usr/bin/env bash
# Sourced by the scripts that fetch packages of Debian for the tests. apt verifies the signatures, with the keyring of the
# package debian-archive-keyring; nothing is installed.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
    echo "$*" >&2
    exit 1
}

# need TOOL...: ends the script if a tool or the keyring is missing.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is not installed"
    done
    [ -e $keyring ] || fail "$keyring is missing (Debian package debian-archive-keyring)"
}

# separate_apt SUITE SCRATCH: puts into `get` an apt-get with that suite alone and without installed packages, so that it
# fetches all dependencies too, and updates its lists.
separate_apt() {
    local suite=$1 scratch=$2
    mkdir -p "$scratch"/{lists,archives}/partial "$scratch"/{sources.list.d,preferences.d}
    touch "$scratch/status"
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main" >"$scratch/sources.list"
    get=(apt-get -q --yes --no-install-recommends -o Acquire::Retries=2 -o Acquire::Languages=none
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
        -o "Dir::Etc::sourcelist=$scratch/sources.list" -o "Dir::Etc::sourceparts=$scratch/sources.list.d"
        -o Dir::Etc::preferences=/dev/null -o "Dir::Etc::preferencesparts=$scratch/preferences.d"
        -o "Dir::State=$scratch" -o "Dir::State::lists=$scratch/lists" -o "Dir::State::status=$scratch/status"
        -o "Dir::Cache=$scratch" -o "Dir::Cache::archives=$scratch/archives" -o Debug::NoLocking=1
        # apt's own user cannot write below the caller's cache.
        -o "APT::Sandbox::User=$(id -un)")
    # A list that cannot be fetched is only a warning without this.
    "${get[@]}" -o APT::Update::Error-Mode=any update >&2
}
