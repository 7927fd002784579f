#!/bin/bash
# setup                    install the Debian packages that build, tests, bench and demo need (deploy/packages.txt)
#
# Skips what is installed already; runs apt-get update once when something is missing. Daemons in the packages are not started.
source tools/dev/common.sh
[[ $# == 0 ]] || die "setup takes no arguments"
ensure_packages
finish setup "all $(wanted_packages | wc -l) packages of deploy/packages.txt are installed"
