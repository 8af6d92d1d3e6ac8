#!/bin/sh
# Inside the Dockerfile: what the extras of pyproject.toml bring, at the versions of constraints.txt, into /opt/venv. Not the project itself:
# its code is copied later, so that a change of code leaves this layer as it is.
#
#     install-extras serve,train
set -eu
extras=$(printf ' --extra %s' $(printf '%s' "$1" | tr ',' ' '))
uv() {
  with-pip-settings /opt/uv/bin/uv "$@"
}
pins=$(mktemp)
# shellcheck disable=SC2086 # one word each, as they are meant
uv pip compile --quiet --no-header --no-annotate --python /opt/venv/bin/python --constraint constraints.txt $extras \
  pyproject.toml --output-file "$pins"
uv pip install --python /opt/venv/bin/python --requirement "$pins"
rm "$pins"
