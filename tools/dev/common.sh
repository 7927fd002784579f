# What the verbs share: messages, packages, configure-and-build. Sourced, with the repository as the current directory.
set -euo pipefail

started=$SECONDS

step() { printf '\n== %s [%s]\n' "$*" "$(elapsed)"; }

elapsed() { printf '%d:%02d' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }

# The last line of a verb, on success and on failure.
finish() { printf '\n./dev %s: %s (%s)\n' "$1" "$2" "$(elapsed)"; }

die() {
  printf '\n./dev: %s\n' "$*" >&2
  exit 1
}

wanted_packages() { sed 's/#.*//' deploy/packages.txt | tr -s ' \t' '\n' | sed '/^$/d'; }

missing_packages() {
  local installed
  # dpkg-query fails when one of the names is unknown to it, and lists the others all the same.
  installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' 2>/dev/null | sed -n 's/^ii //p' | sort -u)
  comm -23 <(wanted_packages | sort -u) <(echo "$installed")
}

# Installs what deploy/packages.txt names and is not there yet. Quiet and quick when nothing is missing.
ensure_packages() {
  command -v dpkg-query >/dev/null || die "this needs Debian 12 (no dpkg here)"
  local missing
  missing=$(missing_packages)
  [[ -n "$missing" ]] || return 0
  step "installing $(wc -w <<<"$missing") packages: $(tr '\n' ' ' <<<"$missing")"
  [[ $(id -u) == 0 ]] || die "installing packages needs root: apt-get install $(tr '\n' ' ' <<<"$missing")"
  # Installed daemons (redis, memcached) must not be started on this machine: we run them ourselves, in namespaces.
  local policy=/usr/sbin/policy-rc.d made_policy=
  if [[ ! -e "$policy" ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
  fi
  local status=0
  # shellcheck disable=SC2086  # a list of words
  { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $missing; } \
    >build/apt.log 2>&1 || status=$?
  [[ -z "$made_policy" ]] || rm -f "$policy"
  if [[ $status != 0 ]]; then
    tail -n 15 build/apt.log >&2
    die "apt-get failed; the whole log is build/apt.log"
  fi
}

configure() {
  local preset=$1
  if [[ ! -f "build/$preset/build.ninja" ]]; then
    step "configuring $preset"
    cmake --preset "$preset" >"build/$preset.configure.log" 2>&1 || {
      tail -n 30 "build/$preset.configure.log" >&2
      die "cmake failed for preset $preset"
    }
  fi
}

# configure_and_build PRESET [TARGET...]: all targets when none is named.
configure_and_build() {
  local preset=$1
  shift
  configure "$preset"
  step "building $preset${*:+: $*}"
  local targets=()
  [[ $# == 0 ]] || targets=(--target "$@")
  NINJA_STATUS='[%f/%t %es] ' cmake --build "build/$preset" -j "$(nproc)" "${targets[@]}" || die "the $preset build failed"
}

# What is installed on a node, and all that demo and bench need.
product=(vsocket vsocket-agent vsocket-cni vsocketctl)

mkdir -p build
