#!/usr/bin/env bash
# Does the server keep to its own OpenAPI document? schemathesis makes requests from it, good and bad, and judges
# the answers: once as a proxy that names the user, once with a bearer token. On a private stack of its own.
#
#   scripts/check-api.sh BIN_DIR       where flashsale and flashsale-server are
#   EXAMPLES=100 SEED=1                how many requests per operation and phase; which ones
set -euo pipefail

bin=$(realpath "${1:?"usage: scripts/check-api.sh BIN_DIR"}")
here=$(realpath "$(dirname "$0")/check-api")
root=$(realpath "$here/../..")
venv="${CARGO_TARGET_DIR:-$root/target}/check-api"
work=$(mktemp -d "${TMPDIR:-/tmp}/flashsale-check-api.XXXXXX")
up=
server=
client=

# Once, whatever ends this script; the server before the stores, for it still needs them.
finish() {
    trap - EXIT
    trap '' INT TERM
    stop "$client"
    stop "$server"
    stop "$up"
    rm -rf "$work"
}
stop() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2> /dev/null || true
    wait "$1" 2> /dev/null || true
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    printf 'check-api: %s\n' "$*" >&2
    exit 1
}

# Waits for a line of a program that still runs. Why it ended, it has said on stderr.
await() {
    local pid=$1 pattern=$2 file=$3
    until grep -qs "$pattern" "$file"; do
        kill -0 "$pid" 2> /dev/null || die "a program ended before it was ready"
        sleep 0.1
    done
}

# Installed once, and again when what is wanted changes.
install() {
    local wanted="$here/requirements.txt"
    cmp -s "$wanted" "$venv/installed.txt" && return 0
    command -v python3 > /dev/null || die "python3 is missing; install it (apt-get install python3-venv)"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 cannot make a virtual environment; apt-get install python3-venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted" ||
        die "schemathesis cannot be installed from PyPI; is there a network?"
    cp "$wanted" "$venv/installed.txt"
}

# check NAME SCHEMATHESIS_OPTIONS -- SERVER_OPTIONS
check() {
    local name=$1 options=() address
    shift
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    printf '\n--- %s\n' "$name"
    "$bin/flashsale-server" --listen 127.0.0.1:0 --rate-limit off "$@" > "$work/server" 2> "$work/log" < /dev/null &
    server=$!
    await "$server" '^listening on ' "$work/server"
    address=$(sed -n 's/^listening on //p' "$work/server")
    "$venv/bin/python" -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
        "$address/openapi.json" "$work/openapi.json"
    "$venv/bin/python" "$here/document.py" "$work/openapi.json"
    # In a folder of its own, because it leaves files where it runs; in the background, because `wait` returns at
    # once on a signal, unlike a program in the foreground.
    (cd "$work" && PYTHONPATH="$here" PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=hooks \
        exec "$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "$address/openapi.json" \
        --max-examples "${EXAMPLES:-100}" --seed "${SEED:-1}" --continue-on-failure \
        --request-timeout 20 "${options[@]}" < /dev/null) &
    client=$!
    wait "$client" || die "$name: the server and its document disagree"
    client=
    if grep -i panic "$work/log"; then die "$name: a handler panicked"; fi
    stop "$server"
    server=
}

install
# Job control gives each background job a process group of its own: Ctrl-C reaches this script alone, which then
# ends them in the right order.
set -m
# In a folder of its own, where no other program looks for its stores.
(cd "$work" && exec "$bin/flashsale" up) > "$work/up" < /dev/null &
up=$!
await "$up" '^ready$' "$work/up"
REDIS_URL=$(sed -n 's/^REDIS_URL=//p' "$work/up")
DATABASE_URL=$(sed -n 's/^DATABASE_URL=//p' "$work/up")
export REDIS_URL DATABASE_URL
"$bin/flashsale" migrate
"$bin/flashsale" seed

# `ignored_auth` sends a wrong credential. A user's name that a trusted proxy sends cannot be wrong: whoever it
# names, is asking. With tokens the check applies.
check 'a proxy names the user' --header 'X-User-Id: alice' --exclude-checks ignored_auth --

head -c 48 /dev/urandom | base64 -w 0 > "$work/key"
bearer=$("$venv/bin/python" "$here/bearer.py" "$work/key")
check 'a token names the user' --header "Authorization: Bearer $bearer" \
    -- --auth jwt --jwt-algorithm HS256 --jwt-key "$work/key"

"$bin/flashsale" audit
printf '\ncheck-api: all in %d s\n' "$SECONDS"
