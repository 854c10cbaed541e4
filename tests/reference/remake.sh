#!/bin/sh
# Makes the stored parity data again, with the pinned reference library in an
# environment of its own (REFERENCE_VENV, or target/reference).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=${REFERENCE_VENV:-$here/../../target/reference}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet -r "$here/requirements.txt"
"$venv/bin/python" "$here/make_parity.py" "$@"
exec "$venv/bin/python" "$here/make_parity_formats.py"
