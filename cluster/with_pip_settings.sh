#!/bin/sh
# Runs a command (uv) with pip's settings under the names that uv reads. Where both are set, uv's own wins.
#
#     cluster/with_pip_settings.sh .venv/bin/uv pip install ...
#
# pip's lists have spaces between; uv's have commas for links and spaces for indexes. uv has no variable for
# PIP_NO_INDEX.
set -eu
if [ -n "${PIP_INDEX_URL:-}" ] && [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="$PIP_INDEX_URL"; fi
if [ -n "${PIP_EXTRA_INDEX_URL:-}" ] && [ -z "${UV_INDEX:-}${UV_EXTRA_INDEX_URL:-}" ]; then
  # pip takes the best version of all indexes. uv stops at the first index that has the name: otherwise a
  # stranger's package of that name could be taken from another index. Where the first one lacks the version, uv
  # says so, and whoever trusts both sets UV_INDEX_STRATEGY=unsafe-best-match.
  export UV_INDEX="$PIP_EXTRA_INDEX_URL"
fi
if [ -n "${PIP_FIND_LINKS:-}" ] && [ -z "${UV_FIND_LINKS+set}" ]; then
  UV_FIND_LINKS=$(printf '%s' "$PIP_FIND_LINKS" | tr ' ' ',')
  export UV_FIND_LINKS
fi
if [ -n "${PIP_CERT:-}" ] && [ -z "${SSL_CERT_FILE:-}" ]; then export SSL_CERT_FILE="$PIP_CERT"; fi
if [ -n "${PIP_TRUSTED_HOST:-}" ] && [ -z "${UV_INSECURE_HOST:-}" ]; then export UV_INSECURE_HOST="$PIP_TRUSTED_HOST"; fi
exec "$@"
