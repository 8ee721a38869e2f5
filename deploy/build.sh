#!/usr/bin/env bash
# Builds the images marigold_c and, with the word cuda, marigold_c:cuda; then asks each what it is.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v docker >/dev/null; then
    echo "deploy/build.sh: docker is not installed" >&2
    exit 1
fi
docker build -f deploy/Dockerfile -t marigold_c .
docker run --rm marigold_c --version
if [ "${1:-}" = cuda ]; then
    docker build -f deploy/Dockerfile.cuda -t marigold_c:cuda .
    docker run --rm marigold_c:cuda --version
fi
docker images marigold_c
