#!/bin/bash
# clean                    remove build/ and whatever an interrupted demo, bench or test left behind; end ./dev vm's machines
#
# Namespaces and links are removed only when the process that made them is gone.
source tools/dev/common.sh
[[ $# == 0 ]] || die "clean takes no arguments"
if [[ $(id -u) == 0 ]] && command -v python3 >/dev/null; then
  python3 test/lib/pods.py cleanup
  python3 test/vm/vm.py down
fi
rm -rf build
finish clean "build/ is gone"
