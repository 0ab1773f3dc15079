#!/bin/sh
# Makes the Python environment that the end-to-end tests drive Writ with: the `mcp` package from the ordinary index, in
# the user's cache folder, so that a second run and a second clone find it. Does nothing where it is already there.
set -eu
version=2.3.0
folder="${XDG_CACHE_HOME:-$HOME/.cache}/writ/python-mcp-$version"
if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c 'import mcp' 2>/dev/null; then
  echo "$folder is ready"
  exit 0
fi
command -v python3 >/dev/null || { echo "python3 (3.10 or newer) is missing" >&2; exit 1; }
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "mcp==$version"
echo "$folder is ready"
