#!/bin/bash
# build.sh FOLDER: compiles the other judges into it. Modules and objects are kept where Go keeps them, so a second time takes seconds.
#
# Needs Go 1.23 or later. Debian 12's golang-go is older: with that one, the toolchain is fetched as a module, like everything else.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
out=$1
export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0
toolchain=go1.23.12

go_minor() { "$1" version | sed -n 's/^go version go1\.\([0-9]*\).*/\1/p'; }

go=$(command -v go) || { echo "build.sh: no go (Debian: golang-go)" >&2; exit 1; }
if [[ $(go_minor "$go") -lt 23 ]]; then
  fetched=$(cd / && "$go" mod download -json "golang.org/toolchain@v0.0.1-$toolchain.linux-$("$go" env GOARCH)" |
    sed -n 's/.*"Dir": "\(.*\)",\{0,1\}/\1/p')
  [[ -n "$fetched" ]] || { echo "build.sh: $toolchain cannot be fetched" >&2; exit 1; }
  # A module's files are not executable, nor writable.
  mkdir -p "$out/$toolchain"
  cp -r --no-preserve=mode "$fetched/." "$out/$toolchain"
  chmod -R +x "$out/$toolchain/bin" "$out/$toolchain/pkg/tool"
  go=$out/$toolchain/bin/go
fi
"$go" build -trimpath -buildvcs=false -o "$out/" ./kubenetworkpolicies ./cyclonus ./cyclonuscases
