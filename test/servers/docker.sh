#!/usr/bin/env bash
# The Docker Engine that tests run against, with all they need in it.
#   docker.sh build          makes what is kept outside the clone: gVisor's runsc, a newer dockerd and runc, amicontained,
#                           a Debian base image
#   docker.sh start          starts an engine with the base image and Writ's images, and prints its address
#   docker.sh newer HOST     starts the newer engine, with user namespaces and images of that engine, and prints its address
#   docker.sh images HOST    the images alone, into an engine that is there
#   docker.sh stop HOST      stops an engine that `start` or `newer` started, and removes its folder
# Needs root, docker.io, containerd, runc, debootstrap and Go; libseccomp-dev and pkg-config to build runc. Says in one
# line what is missing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
root="$(cd "$here/../.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/writ"
debian=bookworm
base="$cache/base-$debian.tar"
gvisor=v0.0.0-20260905035102-160fafc42237
runsc="$cache/runsc-20260905/runsc"
# As test/servers/cache.ts has them. The module of the engine does not know the version that it is of.
moby=v2.0.0-beta.24
engine=29.8.1
runc=v1.3.6
newer="$cache/dockerd-$moby-runc-$runc"
judge=v0.4.9
amicontained="$cache/amicontained-$judge/amicontained"
say() { printf '%s\n' "$*" >&2; }
need() { command -v "$1" >/dev/null || { say "$1 is missing: install $2 with the package manager of the system"; exit 1; }; }
typescript() { node "$root/tools/setup.mjs" "$@"; }

# go_program FILE MODULE@VERSION PACKAGE FLAG...: one program of that very version, where it is not there already.
go_program() {
  local file="$1" module="$2" package="$3"; shift 3
  [ -x "$file" ] && return
  need go "Go 1.26 or newer"
  local folder; folder="$(mktemp -d)"
  if ! (
    cd "$folder"
    go mod init built && go get "$module" && go build -trimpath -o program "$@" "$package"
  ) >"$folder/log" 2>&1; then
    tail -5 "$folder/log" >&2
    rm -rf "$folder"
    return 1
  fi
  mkdir -p "$(dirname "$file")"
  mv "$folder/program" "$file.part" && mv "$file.part" "$file"
  rm -rf "$folder"
}

build_programs() {
  export CGO_ENABLED=0
  go_program "$amicontained" "github.com/genuinetools/amicontained@$judge" github.com/genuinetools/amicontained -ldflags='-s -w'
  go_program "$runsc" "gvisor.dev/gvisor/runsc@$gvisor" gvisor.dev/gvisor/runsc -ldflags='-s -w'
  go_program "$newer/dockerd" "github.com/moby/moby/v2/cmd/dockerd@$moby" github.com/moby/moby/v2/cmd/dockerd \
    -ldflags="-s -w -X github.com/moby/moby/v2/dockerversion.Version=$engine"
  if [ ! -x "$newer/runc" ]; then
    need pkg-config pkg-config
    pkg-config --exists libseccomp || { say "libseccomp is missing: install libseccomp-dev with the package manager of the system"; return 1; }
    CGO_ENABLED=1 go_program "$newer/runc" "github.com/opencontainers/runc@$runc" github.com/opencontainers/runc -tags seccomp -ldflags='-s -w'
  fi
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
    build_programs & programs_job=$!
    build_base
    wait "$programs_job"
    ;;
  start)
    need dockerd docker.io
    need docker docker.io
    host="$(typescript test/servers/control.ts start)"
    load_images "$host" >&2 || { typescript test/servers/control.ts stop "$host"; exit 1; }
    printf '%s\n' "$host"
    ;;
  newer)
    host="$(typescript test/servers/control.ts newer)"
    docker -H "$2" save writ/base writ/python | docker -H "$host" load -q >&2 || { typescript test/servers/control.ts stop "$host"; exit 1; }
    printf '%s\n' "$host"
    ;;
  images) load_images "$2" ;;
  stop) typescript test/servers/control.ts stop "$2" ;;
  *) say "usage: docker.sh build | start | newer HOST | images HOST | stop HOST"; exit 2 ;;
esac
