#!/usr/bin/env bash
# The Docker Engine that tests run against, with all they need in it.
#   docker.sh build          makes what is kept outside the clone: gVisor's runsc, a Debian base image
#   docker.sh start          starts an engine with the base image and Writ's images, and prints its address
#   docker.sh images HOST    the images alone, into an engine that is there
#   docker.sh stop HOST      stops an engine that `start` started, and removes its folder
# Needs root, docker.io, containerd, runc, debootstrap and Go. Says in one line what is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/writ"
debian=bookworm
base="$cache/base-$debian.tar"
gvisor=v0.0.0-20260905035102-160fafc42237
runsc="$cache/runsc-20260905/runsc"
say() { printf '%s\n' "$*" >&2; }
need() { command -v "$1" >/dev/null || { say "$1 is missing: install $2 with the package manager of the system"; exit 1; }; }
typescript() { node "$root/tools/setup.mjs" "$@"; }

build_runsc() {
  [ -x "$runsc" ] && return
  need go "Go 1.25 or newer"
  local folder; folder="$(mktemp -d)"
  (
    cd "$folder"
    go mod init runsc >/dev/null 2>&1
    go get "gvisor.dev/gvisor/runsc@$gvisor" >/dev/null 2>&1
    CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o runsc gvisor.dev/gvisor/runsc
  )
  mkdir -p "$(dirname "$runsc")"
  mv "$folder/runsc" "$runsc.part" && mv "$runsc.part" "$runsc"
  rm -rf "$folder"
}

build_base() {
  [ -s "$base" ] && return
  need debootstrap debootstrap
  local folder; folder="$(mktemp -d)"
  local mirror; mirror="$(sed -n 's/^URIs: //p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)"
  # shellcheck disable=SC2086
  debootstrap --variant=minbase "$debian" "$folder/rootfs" $mirror >"$folder/log" 2>&1 || { tail -5 "$folder/log" >&2; exit 1; }
  mkdir -p "$cache"
  tar -C "$folder/rootfs" -c . >"$base.part" && mv "$base.part" "$base"
  rm -rf "$folder"
}

# Writ's images, as a user builds them; kept as one archive under the digest of what they are made from.
load_images() {
  local host="$1" names=(base python node go shell)
  docker -H "$host" image inspect "base:$debian" >/dev/null 2>&1 || docker -H "$host" import "$base" "base:$debian" >/dev/null
  local key archive
  key="$(cd "$root" && cat sandbox-images/*/Dockerfile native/sandbox-agent/*.sha256 | cat - <(stat -c %s "$base") | sha256sum | cut -c1-16)"
  archive="$cache/images-$key.tar"
  if [ -s "$archive" ]; then
    docker -H "$host" load -q -i "$archive" >&2
    return
  fi
  local folder; folder="$(mktemp -d)"
  "$root/bin/writ" init "$folder" >/dev/null
  printf '\ndocker: { host: "%s" }\n' "$host" >>"$folder/writ.yaml"
  "$root/bin/writ" images build "${names[@]}" --base "base:$debian" --network host --config "$folder/writ.yaml" >"$folder/log" 2>&1 \
    || { tail -20 "$folder/log" >&2; rm -rf "$folder"; return 1; }
  rm -rf "$folder"
  docker -H "$host" save -o "$archive.part" "${names[@]/#/writ/}"
  rm -f "$cache"/images-*.tar
  mv "$archive.part" "$archive"
}

case "${1:-}" in
  build)
    build_runsc & runsc_job=$!
    build_base
    wait "$runsc_job"
    ;;
  start)
    need dockerd docker.io
    need docker docker.io
    host="$(typescript test/servers/control.ts start)"
    load_images "$host" >&2 || { typescript test/servers/control.ts stop "$host"; exit 1; }
    printf '%s\n' "$host"
    ;;
  images) load_images "$2" ;;
  stop) typescript test/servers/control.ts stop "$2" ;;
  *) say "usage: docker.sh build | start | images HOST | stop HOST"; exit 2 ;;
esac
