# shellcheck shell=bash
# Debian packages: installs those that are missing, and asks nothing of the network when none is.
# Needs: say.sh.

# What each kind of work needs.
packages_for() {
  case $1 in
    build) echo build-essential ca-certificates ;;
    bench) echo qemu-system-common qemu-utils util-linux ;;
    guest) echo qemu-system-x86 busybox-static cpio e2fsprogs kmod fio qemu-guest-agent ;;
    test) echo python3 qemu-utils libvirt-daemon-system libvirt-clients shellcheck ;;
    ceph) echo ceph-mon ceph-osd ceph-mgr ceph-common librados2 python3-rados ;;
    rbd) echo ceph-common fio librbd1 qemu-block-extra ;;
    rust) echo cargo-web rustc-web rustfmt-web rust-web-clippy ;;
    *) fail "packages_for: no kind $1" ;;
  esac
}

require_debian_root() {
  [ "$(id -u)" = 0 ] || fail "run this as root: it installs packages and mounts small file systems of its own"
  command -v apt-get >/dev/null || fail "apt-get is not here: this script is made for Debian 12"
}

package_is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# install_packages_for KIND...
install_packages_for() {
  local kind name missing=()
  for kind in "$@"; do
    for name in $(packages_for "$kind"); do package_is_installed "$name" || missing+=("$name"); done
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  tell "installing ${missing[*]}"
  apt-get update -qq || fail "apt-get update"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "${missing[@]}" >/dev/null </dev/null ||
    fail "apt-get install ${missing[*]}"
}
