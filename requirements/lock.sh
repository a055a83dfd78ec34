#!/usr/bin/env bash
# Make the lock files anew. They record versions and hashes, never where a package was fetched from.
set -eu
cd "$(dirname "$0")/.."
compile() {
    pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@"
}
compile --extra device --output-file requirements/run.lock pyproject.toml requirements/build.in
compile --output-file requirements/test.lock requirements/test.in
compile --output-file requirements/peers.lock requirements/peers.in
