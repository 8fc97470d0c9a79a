# Sourced by quickstart.sh and run_tests.sh: a Python with this toolbox, in $PYTHON.
# An active environment, or one of the system that has all (as in a container), is used as it is; else .venv is made
# and filled once.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] || python -c 'import torch, mmengine' 2> /dev/null; then
  PYTHON=${PYTHON:-python}
  ACTIVATE=
else
  PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
  ACTIVATE='source .venv/bin/activate'
  if [ ! -x "$PYTHON" ]; then
    echo "No environment is active: making .venv"
    # a torch that is there, as its CPU build, is not downloaded again
    python3 -m venv $(python3 -c 'import torch' 2> /dev/null && echo --system-site-packages) .venv
  fi
fi

install_requirements() {  # requirements_file ...; does nothing where all of them are met already
  local files=()
  for name in "$@"; do files+=(-r "requirements/$name.txt"); done
  local missing
  if missing=$("$PYTHON" tools/misc/missing_requirements.py "$@"); then return; fi
  echo "Installing: $missing"
  "$PYTHON" -m pip install --disable-pip-version-check -q -r requirements/build.txt
  "$PYTHON" -m pip install --disable-pip-version-check -q "${files[@]}"
  "$PYTHON" -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
}
