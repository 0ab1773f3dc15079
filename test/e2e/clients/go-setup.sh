#!/bin/sh
# Builds the Go client that the end-to-end tests drive Writ with, into the user's cache folder, so that a second run and a
# second clone find it. The versions stand in go/go.mod, their hashes in go/go.sum. Does nothing where it is already there.
set -eu
version=1.8.0
source="$(cd "$(dirname "$0")/go" && pwd)"
key="$(cat "$source/main.go" "$source/go.sum" | sha256sum | cut -c1-12)"
program="${XDG_CACHE_HOME:-$HOME/.cache}/writ/go-mcp-$version-$key/goclient"
if [ -x "$program" ]; then
  echo "$program is ready"
  exit 0
fi
command -v go >/dev/null || { echo "go (1.25 or newer) is missing" >&2; exit 1; }
mkdir -p "$(dirname "$program")"
cd "$source"
go build -trimpath -mod=readonly -o "$program" .
echo "$program is ready"
