#!/usr/bin/env bash
# Run the test suite on up to four cores: bash tools/run_tests.sh [pytest options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
install_requirements runtime tests
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # each test process has a core of its own
exec "$PYTHON" -m pytest -n logical --maxprocesses 4 --dist worksteal "$@"
