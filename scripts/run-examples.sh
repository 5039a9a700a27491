#!/usr/bin/env bash
# Runs every example to its end and looks at what it prints, and a crate that depends on the core from outside of
# this workspace. On a private stack of its own.
#
#   scripts/run-examples.sh BIN_DIR     where flashsale and examples/ are
set -euo pipefail

bin=$(realpath "${1:?"usage: scripts/run-examples.sh BIN_DIR"}")
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d "${TMPDIR:-/tmp}/flashsale-examples.XXXXXX")
up=
example=
shop=

# Once, whatever ends this script; the examples before the stores, for they still need them.
finish() {
    trap - EXIT
    trap '' INT TERM
    for pid in $example $shop $up; do
        kill -TERM "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die() {
    printf 'run-examples: %s\n' "$*" >&2
    exit 1
}

# await PID PATTERN FILE: waits for a line of a program that still runs.
await() {
    local pid=$1 pattern=$2 file=$3 began=$SECONDS
    until grep -qs "$pattern" "$file"; do
        kill -0 "$pid" 2> /dev/null || die "a program ended before it printed $pattern"
        [ $((SECONDS - began)) -lt 60 ] || die "no $pattern within a minute"
        sleep 0.1
    done
}

start() {
    printf '\n--- %s\n' "$1"
    "$bin/examples/$1" > "$work/$1" < /dev/null &
    example=$!
}

# stop PID NAME: as Ctrl-C does. It has to end by itself, and well.
stop() {
    kill -INT "$1"
    wait "$1" || die "$2 did not end well"
    grep -qx stopped "$work/$2" || die "$2 did not stop in good order"
    cat "$work/$2"
}

# await_state ORDER STATE
await_state() {
    local began=$SECONDS
    until "$bin/flashsale" --output json orders show "$1" 2> /dev/null | grep -q "$2"; do
        [ $((SECONDS - began)) -lt 60 ] || die "order $1 is not $2 within a minute"
        sleep 0.1
    done
}

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

# open_shop: where it listens, and what it sells.
export LISTEN=127.0.0.1:0
open_shop() {
    start embed_axum
    shop=$example
    await "$shop" ' on http://' "$work/embed_axum"
    url=$(sed -n 's/.* on //p' "$work/embed_axum")
    product=$(sed -n 's/^product \([0-9]*\) .*/\1/p' "$work/embed_axum")
}
close_shop() {
    stop "$shop" embed_axum
    shop=
}
# buy USER KEY: prints the status; the order's id is in the file.
buy() {
    curl -sS -o "$work/answer" -w '%{http_code}' -X POST "$url/buy/$product" \
        -H "X-User-Id: $1" -H "Idempotency-Key: $2"
}

open_shop
# The keeper loads the sale in a moment; until then nothing is sold, and the answer says: again later.
began=$SECONDS
until [ "$(buy ann ann-1)" = 202 ]; do
    [ $((SECONDS - began)) -lt 60 ] || die "no order is taken: $(cat "$work/answer")"
    sleep 0.1
done
order=$(cat "$work/answer")
[ "$(buy ann ann-1)" = 202 ] && [ "$(cat "$work/answer")" = "$order" ] || die "a repeat is another order"
[ "$(buy ann ann-2)" = 202 ] && [ "$(buy ann ann-3)" = 409 ] || die "two units are the most for each"
[ "$(buy 'a n n' x)" = 400 ] || die "a bad name is taken"
await_state "$order" Confirmed
[ "$(curl -sS "$url/orders/$order")" = Confirmed ] || die "the order is not confirmed"
curl -sS "$url/metrics" | grep -q '^flashsale_admissions_total{outcome="admitted"} 2$' || die "it counts wrongly"
close_shop

start custom_notification
wait "$example" || die "it failed"
cat "$work/custom_notification"
[ "$(grep -c 'it is yours, for 80.00$' "$work/custom_notification")" = 3 ] || die "not everybody has one mail"

DRAIN=elsewhere open_shop
[ "$(buy bob bob-1)" = 202 ] || die "no order is taken: $(cat "$work/answer")"
order=$(cat "$work/answer")
[ "$(curl -sS "$url/orders/$order")" = Queued ] || die "somebody drains"
start worker_only
await_state "$order" Confirmed
stop "$example" worker_only
close_shop

printf '\n--- stranger\n'
# The versions that are tested here. What it builds is built as the workspace is, and shared with it.
cp "$root/Cargo.lock" "$root/examples/stranger/Cargo.lock"
CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}" CARGO_PROFILE_DEV_DEBUG=line-tables-only \
    cargo run --quiet --manifest-path "$root/examples/stranger/Cargo.toml" < /dev/null > "$work/stranger" ||
    die "it failed"
cat "$work/stranger"
grep -qx 'sold out, and it adds up' "$work/stranger" || die "it did not come to its end"

"$bin/flashsale" audit
printf '\nrun-examples: all in %d s\n' "$SECONDS"
