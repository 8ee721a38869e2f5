#!/bin/sh
# The first hour on an NVIDIA GPU, unattended: see tools/first_hour.py, which takes the same arguments.
# diffusers is measured beside the engine where torch has the GPU: `make .venv-test/.oracle` before.
set -e
cd "$(dirname "$0")/.."
make .venv-test/.installed .venv-test/.cublas
exec .venv-test/bin/python tools/first_hour.py "$@"
