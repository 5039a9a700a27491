#!/usr/bin/env bash
# A private Redis and PostgreSQL, the demo sale, and the server in the foreground, ready for curl.
# Ctrl-C ends all of it.
#
#   scripts/run.sh BIN_DIR     where flashsale and flashsale-server are
set -euo pipefail

bin=${1:?"usage: scripts/run.sh BIN_DIR"}
log=$(mktemp "${TMPDIR:-/tmp}/flashsale-up.XXXXXX")
up=
server=

# Once, whatever ends this script; the server first, for it still needs the stores.
finish() {
    trap - EXIT
    trap '' INT TERM
    if [ -n "$server" ]; then
        kill -TERM "$server" 2> /dev/null || true
        wait "$server" 2> /dev/null || true
    fi
    if [ -n "$up" ]; then
        kill -TERM "$up" 2> /dev/null || true
        wait "$up" 2> /dev/null || true
    fi
    rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Job control gives each background job a process group of its own: Ctrl-C reaches this script
# alone, which then ends the two in the right order.
set -m
"$bin/flashsale" up > "$log" < /dev/null &
up=$!
until grep -qx ready "$log"; do
    # Why it ended, it has said on stderr.
    kill -0 "$up" 2> /dev/null || exit 1
    sleep 0.1
done
REDIS_URL=$(sed -n 's/^REDIS_URL=//p' "$log")
DATABASE_URL=$(sed -n 's/^DATABASE_URL=//p' "$log")
export REDIS_URL DATABASE_URL

"$bin/flashsale" migrate
"$bin/flashsale" seed
"$bin/flashsale-server" < /dev/null &
server=$!
# `wait` returns at once on a signal, unlike a program in the foreground.
wait "$server"
