#!/bin/sh
# Inside the Dockerfile: what the extras of pyproject.toml bring, at the versions of constraints.txt, into /opt/venv. Not the project itself:
# its code is copied later, so that a change of code leaves this layer as it is.
#
#     install-extras serve,train
#
# Each package has to be a wheel whose hash is in cluster/pins (`inv lock`). Nothing is built, so no package's code
# runs here. VENV and UV_PROGRAM name another folder and another uv (cluster/extras.py).
set -eu
venv=${VENV:-/opt/venv}
extras=$(printf ' --extra %s' $(printf '%s' "$1" | tr ',' ' '))
# The best version of all indexes, as pip takes it. The hashes say which file it is, so no index can put in its own.
export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
uv() {
  with-pip-settings "${UV_PROGRAM:-/opt/uv/bin/uv}" "$@"
}
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
# shellcheck disable=SC2086 # one word each, as they are meant
uv pip compile --quiet --no-header --no-annotate --no-build --python "$venv/bin/python" \
  --constraint constraints.txt $extras pyproject.toml --output-file "$pins"
# torch's CPU build has a version of its own, where PIP_FIND_LINKS or an index has it.
cpu=
if grep -q '^torch==.*+cpu' "$pins"; then cpu='--constraint cluster/pins/torch-cpu.txt'; fi
# shellcheck disable=SC2086
uv pip install --require-hashes --no-build --python "$venv/bin/python" --requirement "$pins" \
  --constraint cluster/pins/packages.txt $cpu
