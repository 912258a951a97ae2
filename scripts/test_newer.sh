#!/usr/bin/env bash
# Run the tests without windows on the newest Python above the main environment's, if this machine has one.
set -euo pipefail
uv=$1
main=$(.venv/bin/python -c 'import sys; print(sys.version_info[1])')
newer=""
for minor in 14 13 12; do
  [ "$minor" -gt "$main" ] || break
  if "$uv" python find --no-project "3.$minor" >/dev/null 2>&1; then newer="3.$minor"; break; fi
done
if [ -z "$newer" ]; then
  echo "No Python newer than 3.$main here: the other world of readers is not tested on this machine."
  exit 0
fi
[ -d .venv-newer ] || "$uv" venv --quiet --python "$newer" .venv-newer
# Without napari: this also shows that the core and the command line need no window.
"$uv" pip install --quiet --python .venv-newer -e '.[test]'
.venv-newer/bin/python -m pytest -m 'not gui and not soak and not gpu' tests/unit/slide tests/unit/cli tests/contract
