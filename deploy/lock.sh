#!/bin/sh
# Writes the lists of packages with their hashes that install.sh installs by, anew: make lock, after pyproject.toml or
# constraints.txt has changed. uv must be in PATH; the hashes are those that its index states.
#
# requirements.lock   all but torch            torch.lock   torch of the default index, and what only it needs
# tools.lock          uv, for other builds of torch
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

compile() { # INPUT OUTPUT
  uv pip compile "$1" --quiet --no-config --constraint constraints.txt --universal --python-version 3.11 \
    --generate-hashes --no-header --no-annotate --no-emit-index-url \
    --no-emit-package pywin32 --no-emit-package colorama --no-emit-package httpx2-jsfetch --output-file "$2"
}

# Prints the entries whose names match (WANTED 1), or those whose names do not (0).
entries() { # PATTERN WANTED FILE
  awk -v pattern="$1" -v wanted="$2" '/^[^ ]/ { mine = ($0 ~ pattern) } mine == wanted' "$3"
}

compile pyproject.toml "$fresh/all"
entries '^(torch|triton|cuda-|nvidia-)' 0 "$fresh/all" >"$fresh/requirements.lock"
entries '^(torch|triton|cuda-|nvidia-)' 1 "$fresh/all" >"$fresh/torch.lock"
grep '^uv==' constraints.txt >"$fresh/tools.in"
compile "$fresh/tools.in" "$fresh/tools.lock"
cp "$fresh/requirements.lock" "$fresh/torch.lock" "$fresh/tools.lock" deploy/
