#!/usr/bin/env bash
# Install what a napari window needs where there is no screen: Xvfb, Mesa's software GL, Qt's xcb libraries.
set -euo pipefail

if command -v Xvfb >/dev/null && command -v xvfb-run >/dev/null && ldconfig -p 2>/dev/null | grep -q 'libxcb-cursor\.so\.0'; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "No Xvfb here, and this is not a Debian machine with root: GUI tests will use the display that is there." >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
gl=libgl1-mesa-dri
apt-get install -y -qq --no-install-recommends xvfb xauth libgl1 libegl1 libopengl0 "$gl" libglx-mesa0 \
  libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 \
  libxcb-shape0 libxcb-xinerama0 libxcb-xfixes0 libdbus-1-3 libfontconfig1 fonts-dejavu-core >/dev/null
