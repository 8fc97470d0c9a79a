#!/usr/bin/env bash
# Run the test suite: bash tools/run_tests.sh [pytest options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
install_requirements runtime tests
exec "$PYTHON" -m pytest "$@"
