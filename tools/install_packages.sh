#!/usr/bin/env bash
# Installs the Debian 12 packages that spear is built from, only those that are missing; as root or through sudo.
# usage: tools/install_packages.sh [build] [test] [cross] [page]        default: build test
#   build  compiler, CMake, libraries (README.md gives the reason of each)
#   test   GoogleTest, the formatter, yardsticks that tests compare with
#   cross  the aarch64 compiler and emulator
#   page   the browser that tests of the server's web page drive; they are skipped without it
set -euo pipefail

build=(g++ cmake ninja-build ccache nlohmann-json3-dev libexpected-dev libfmt-dev libxxhash-dev libssl-dev
  libpcre2-dev libutf8proc-dev libcli11-dev libeigen3-dev libcurl4-openssl-dev libopenblas-dev libdnnl-dev libboost1.81-dev
  python3 python3-pip)
test=(libgtest-dev clang-format-14 python3-jinja2 python3-numpy binutils git)
cross=(g++-aarch64-linux-gnu qemu-user googletest)
page=(chromium chromium-driver)

wanted=()
for group in "${@:-build test}"; do
  for name in $group; do
    case $name in
      build) wanted+=("${build[@]}") ;;
      test) wanted+=("${test[@]}") ;;
      cross) wanted+=("${cross[@]}") ;;
      page) wanted+=("${page[@]}") ;;
      *) echo "install_packages: unknown group '$name'; expected build, test, cross or page" >&2; exit 2 ;;
    esac
  done
done

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "install_packages: all ${#wanted[@]} packages are installed"
  exit 0
fi
command -v apt-get >/dev/null || {
  echo "install_packages: no apt-get here; install these by hand: ${missing[*]}" >&2
  exit 1
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "install_packages: run as root, or install sudo; missing: ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "install_packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
