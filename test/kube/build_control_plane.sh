#!/bin/bash
# build_control_plane.sh FOLDER
#
# Makes FOLDER/kube-apiserver, FOLDER/kubectl and FOLDER/etcd from Go modules, once: what is there already is kept. Nothing is cloned; the
# module proxy that `go env GOPROXY` names is all that is needed. About five minutes on two cores, and 2.5 GB of modules and objects that
# are removed afterwards when they are in a folder of our own (GOMODCACHE and GOCACHE unset).
set -euo pipefail
kubernetes=v1.34.4
etcd=v3.6.5
folder=$(mkdir -p "$1" && cd "$1" && pwd)

exec 9>"$folder/.lock"
flock 9 # one builder at a time; the others find it done
[[ ! -f "$folder/versions" || $(<"$folder/versions") != "$kubernetes $etcd" ]] || exit 0
go=$("$(dirname "$(readlink -f "$0")")/../lib/go_toolchain.sh" "$folder")

work=$(mktemp -d "$folder/build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
export GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-mod=mod GOMODCACHE=${GOMODCACHE:-$work/modules} GOCACHE=${GOCACHE:-$work/objects}

# A module that requires k8s.io/kubernetes. What that one requires at v0.0.0 is published as v0.MINOR.PATCH ("staging" repositories).
mkdir "$work/kubernetes" "$work/etcd"
cd "$work/kubernetes"
gomod=$("$go" mod download -json "k8s.io/kubernetes@$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
staging=v0${kubernetes#v1}
{
  echo "module controlplane"
  sed -n '/^go /p; /^godebug /p' "$gomod"
  echo "require k8s.io/kubernetes $kubernetes"
  sed -n "s#^[[:space:]]*\(k8s.io/[^ ]*\) v0.0.0\$#replace \1 => \1 $staging#p" "$gomod"
} >go.mod
cat >tools.go <<'GO'
//go:build tools

package controlplane

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
import _ "k8s.io/kubernetes/cmd/kubectl"
GO
"$go" mod tidy 2>"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
flags=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  flags+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$kubernetes")"
done
"$go" build -p "${JOBS:-2}" -trimpath -buildvcs=false -ldflags "-s -w $flags" -o "$work/" \
  k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl

cd "$work/etcd"
"$go" mod init controlplane >/dev/null 2>&1
"$go" get "go.etcd.io/etcd/server/v3@$etcd" 2>"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
"$go" build -p "${JOBS:-2}" -trimpath -buildvcs=false -ldflags "-s -w" -o "$work/etcd-program" go.etcd.io/etcd/server/v3

mv "$work/kube-apiserver" "$work/kubectl" "$folder/"
mv "$work/etcd-program" "$folder/etcd"
echo "$kubernetes $etcd" >"$folder/versions"
