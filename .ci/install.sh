# shellcheck shell=bash
# install installs packages of Debian's, where it can: for scripts in .ci.
updated=""
install() { # package...
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$0: needs $*, and can install nothing here (not root, or no apt-get)" >&2
    return 1
  fi
  [ -n "$updated" ] || apt-get update -qq
  updated=yes
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"
}
