#!/bin/bash
# build.sh FOLDER: compiles the other judges into it. Modules and objects are kept where Go keeps them, so a second time takes seconds.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
out=$1
go=$(../lib/go_toolchain.sh "$out")
export GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0
"$go" build -trimpath -buildvcs=false -o "$out/" ./kubenetworkpolicies ./cyclonus ./cyclonuscases
