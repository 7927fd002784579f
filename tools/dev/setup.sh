#!/bin/bash
# setup                    install the Debian packages that build, tests, bench and demo need (deploy/packages.txt)
#
# Skips what is installed already; runs apt-get update once when something is missing. Daemons in the packages are not started.
# The kernel of the virtual machines is unpacked into build/vm, not installed.
source tools/dev/common.sh
[[ $# == 0 ]] || die "setup takes no arguments"
ensure_packages
step "the virtual machines' kernel"
python3 test/vm/kernel.py build/vm || die "no kernel for the virtual machines"
finish setup "all $(wanted_packages | wc -l) packages of deploy/packages.txt are installed"
