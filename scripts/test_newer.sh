#!/usr/bin/env bash
# Run the tests without windows on the newest Python above the main environment's, if this machine has one.
#   test_newer.sh UV [OPTION OF PYTEST...]
set -euo pipefail
uv=$1
shift
main=$(.venv/bin/python -c 'import sys; print(sys.version_info[1])')
newer=""
for minor in 14 13 12; do
  [ "$minor" -gt "$main" ] || break
  # An interpreter on the path, or one that pyenv keeps aside.
  for python in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor."*/bin/python3; do
    if "$python" -c "import sys; sys.exit(sys.version_info[1] != $minor)" >/dev/null 2>&1; then
      newer=$("$python" -c 'import sys; print(sys.executable)')
      break 2
    fi
  done
done
if [ -z "$newer" ]; then
  echo "No Python newer than 3.$main here: the other world of readers is not tested on this machine."
  exit 0
fi
[ -d .venv-newer ] || "$uv" venv --quiet --python "$newer" .venv-newer
# Without napari: this also shows that the core and the command line need no window.
"$uv" pip install --quiet --python .venv-newer -e '.[test]'
exec .venv-newer/bin/python -m pytest "$@" -p no:pytest-qt -m 'not gui and not soak and not gpu' tests/unit/slide tests/unit/cli
