#!/usr/bin/env bash
# Installs what `make demo` and `make test` need and this machine lacks: a Redis (or Valkey) server
# and the PostgreSQL server programs. Says what it runs, and starts no system service: the project
# runs servers of its own on free ports. Quick when everything is there.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# The same places that flashsale-stack looks in.
find_program() {
    local name=$1 dir
    command -v "$name" > /dev/null 2>&1 && return 0
    for dir in /usr/lib/postgresql/*/bin /usr/libexec/postgresql*/bin /usr/pgsql-*/bin \
        /opt/homebrew/bin /opt/homebrew/opt/{redis,valkey,postgresql*}/bin \
        /usr/local/bin /usr/local/sbin /usr/local/opt/{redis,valkey,postgresql*}/bin \
        /usr/bin /usr/sbin; do
        [ -x "$dir/$name" ] && return 0
    done
    return 1
}

has_redis() { find_program redis-server || find_program valkey-server; }
has_postgres() { find_program postgres && find_program initdb && find_program psql; }

# Runs a command as root, and shows it.
as_root() {
    say "+ ${sudo[*]:+${sudo[*]} }$*" >&2
    ${sudo[@]+"${sudo[@]}"} "$@"
}

# Fails with the one command that a person has to run where this script may not.
become_root() {
    sudo=()
    [ "$(id -u)" -eq 0 ] && return 0
    if command -v sudo > /dev/null 2>&1 && sudo -n true 2> /dev/null; then
        sudo=(sudo -n)
        return 0
    fi
    die "missing: $missing. Installing needs root, and sudo asks for a password here. Run: sudo $*"
}

policy=/usr/sbin/policy-rc.d
made_policy=
cluster=/etc/postgresql-common/createcluster.conf
changed_cluster=

# Also when the installation fails or is interrupted.
restore_apt() {
    if [ -n "$changed_cluster" ]; then as_root mv "$cluster.before-flashsale" "$cluster"; fi
    if [ -n "$made_policy" ]; then as_root rm -f "$policy"; fi
}

# Debian starts a service as soon as its package is installed, and makes a database cluster too.
# A policy of exit code 101 denies the starts; one that an administrator has put there is kept.
apt_install() {
    local packages=("$@") services_before
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120)
    become_root apt-get install -y "${packages[@]}"
    services_before=$(enabled_services)
    trap restore_apt EXIT
    if [ ! -e "$policy" ]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
        as_root chmod 755 "$policy"
    fi
    as_root "${apt[@]}" update
    if [[ " ${packages[*]} " == *" postgresql "* ]] && [ ! -e "$cluster" ]; then
        # Its package asks before replacing a file that is there: so it is installed first.
        as_root "${apt[@]}" install -y --no-install-recommends postgresql-common
        as_root sed -i.before-flashsale 's/^#* *create_main_cluster *=.*/create_main_cluster = false/' "$cluster"
        changed_cluster=yes
    fi
    as_root "${apt[@]}" install -y --no-install-recommends "${packages[@]}"
    disable_new_services "$services_before"
}

# Installing also enables a service for the next boot, which would be one more that was not there.
enabled_services() {
    local name
    command -v systemctl > /dev/null 2>&1 || return 0
    for name in redis-server redis valkey postgresql; do
        systemctl is-enabled --quiet "$name.service" 2> /dev/null && printf '%s ' "$name"
    done
    return 0
}

disable_new_services() {
    local before=" $1" name
    for name in $(enabled_services); do
        [[ $before == *" $name "* ]] && continue
        # An alias may have gone with the service of its other name.
        systemctl is-enabled --quiet "$name.service" 2> /dev/null || continue
        as_root systemctl disable "$name.service" || true
        # Only where systemd runs is there something to stop.
        if [ -d /run/systemd/system ]; then as_root systemctl stop "$name.service" || true; fi
    done
}

# Fedora and its relatives start nothing by themselves; valkey has taken the place of redis there.
dnf_install() {
    local packages=() package services_before
    become_root dnf install -y "$@"
    services_before=$(enabled_services)
    for package in "$@"; do
        if [ "$package" = valkey ] && ! dnf -q list valkey > /dev/null 2>&1; then package=redis; fi
        packages+=("$package")
    done
    as_root dnf install -y "${packages[@]}"
    disable_new_services "$services_before"
}

apk_install() {
    become_root apk add "$@"
    as_root apk update
    as_root apk add "$@"
}

# Homebrew starts nothing by itself, and refuses to run as root.
brew_install() {
    [ "$(id -u)" -ne 0 ] || die "missing: $missing. Homebrew refuses root: run this as an ordinary user"
    say "+ brew install $*"
    HOMEBREW_NO_AUTO_UPDATE=1 brew install "$@"
}

# packages MANAGER REDIS_PACKAGE POSTGRES_PACKAGE: what to install for what is missing.
install_with() {
    local manager=$1 redis=$2 postgres=$3 packages=()
    has_redis || packages+=("$redis")
    has_postgres || packages+=("$postgres")
    "${manager}_install" "${packages[@]}"
}

command -v cargo > /dev/null 2>&1 ||
    die "cargo is missing: install Rust 1.95 or newer from https://rustup.rs, then try again"

missing=
has_redis || missing="redis-server (or valkey-server)"
has_postgres || missing="${missing:+$missing and }the PostgreSQL server"
if [ -z "$missing" ]; then
    exit 0
fi

say "missing: $missing"
if [ "$(uname -s)" = Darwin ]; then
    command -v brew > /dev/null 2>&1 ||
        die "install Homebrew from https://brew.sh, then run: brew install redis postgresql@17"
    install_with brew redis postgresql@17
elif command -v apt-get > /dev/null 2>&1; then
    install_with apt redis-server postgresql
elif command -v dnf > /dev/null 2>&1; then
    install_with dnf valkey postgresql-server
elif command -v apk > /dev/null 2>&1; then
    install_with apk redis postgresql
elif command -v brew > /dev/null 2>&1; then
    install_with brew redis postgresql@17
else
    die "no apt-get, dnf, apk or brew here. Install Redis 7 (or Valkey) and PostgreSQL, and put them on PATH"
fi

has_redis || die "redis-server is still missing after the installation"
has_postgres || die "the PostgreSQL server is still missing after the installation"
say "done"
