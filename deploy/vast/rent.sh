#!/bin/sh
# Bid for the cheapest suitable offer of Vast.ai: `spillway deploy vast` with the usual options.
#   VAST_API_KEY=... deploy/vast/rent.sh a100-80 0.80 Qwen/Qwen2.5-7B-Instruct-AWQ REGISTRY/spillway-gpu:0.1.0 [--dry-run]
set -eu
[ $# -ge 4 ] || { sed -n 2,3p "$0" >&2; exit 2; }
gpu=$1 bid=$2 model=$3 image=$4
shift 4
exec spillway deploy vast --gpu "$gpu" --price "$bid" --model "$model" --image "$image" --interruptible "$@"
