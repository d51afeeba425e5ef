#!/bin/sh
# Snakemake on this checkout, in the current folder.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
exec "$checkout/.venv/bin/snakemake" --snakefile "$checkout/Snakefile" --directory "$PWD" "$@"
