#!/usr/bin/env bash
# Run a command on a virtual screen when there is one to be had, else on the display that is there.
set -euo pipefail
export LIBGL_ALWAYS_SOFTWARE="${LIBGL_ALWAYS_SOFTWARE:-1}"
if command -v xvfb-run >/dev/null; then
  exec xvfb-run -a -s "-screen 0 1920x1080x24" "$@"
fi
if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && [ "$(uname)" = Linux ]; then
  echo "neither a display nor Xvfb: cannot open a window" >&2
  exit 1
fi
exec "$@"
