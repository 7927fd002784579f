#!/bin/bash
# build [PRESET]           configure and build a preset of CMakePresets.json: release (default), debug, asan, tsan, fuzz, musl
#
# Results land in build/PRESET/bin and build/PRESET/lib.
source tools/dev/common.sh
preset=${1:-release}
[[ $# -le 1 ]] || die "build takes one preset"
ensure_packages
configure "$preset"
step "building $preset"
# By preset: musl builds only what it is about.
NINJA_STATUS='[%f/%t %es] ' cmake --build --preset "$preset" -j "$(nproc)" || die "the $preset build failed"
finish build "$preset is built: build/$preset/bin, build/$preset/lib"
