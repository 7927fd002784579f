#!/bin/bash
# build [PRESET]           configure and build a preset of CMakePresets.json: release (default), debug, asan, tsan, fuzz
#
# Results land in build/PRESET/bin and build/PRESET/lib.
source tools/dev/common.sh
preset=${1:-release}
[[ $# -le 1 ]] || die "build takes one preset"
ensure_packages
configure_and_build "$preset"
finish build "$preset is built: build/$preset/bin, build/$preset/lib"
