#!/bin/bash
# go_toolchain.sh FOLDER: prints the path of a Go compiler, 1.24 or later: the installed one, or one that is kept in FOLDER.
#
# Debian 12's golang-go is older than what Kubernetes is written in. With that one the toolchain is fetched as a module, as all else is.
set -euo pipefail
toolchain=go1.24.11
minor=24

version_of() { "$1" version | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p'; }

go=$(command -v go) || { echo "go_toolchain.sh: no go (Debian: golang-go)" >&2; exit 1; }
if [[ $(version_of "$go") -lt $minor ]]; then
  kept=$(mkdir -p "$1" && cd "$1" && pwd)/$toolchain
  exec 9>"$kept.lock"
  flock 9
  if [[ ! -x $kept/bin/go ]]; then
    export GOFLAGS=-mod=mod
    fetched=$(cd / && "$go" mod download -json "golang.org/toolchain@v0.0.1-$toolchain.linux-$("$go" env GOARCH)" |
      sed -n 's/.*"Dir": "\(.*\)",\{0,1\}/\1/p')
    [[ -n "$fetched" ]] || { echo "go_toolchain.sh: $toolchain cannot be fetched" >&2; exit 1; }
    # A module's files are not executable, nor writable.
    rm -rf "$kept.new"
    cp -r --no-preserve=mode "$fetched" "$kept.new"
    chmod -R +x "$kept.new/bin" "$kept.new/pkg/tool"
    rm -rf "$kept"
    mv "$kept.new" "$kept"
  fi
  go=$kept/bin/go
fi
echo "$go"
