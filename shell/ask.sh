#!/usr/bin/env bash
# Ask a trained model about clips of your own: bash shell/ask.sh CLIP… [options of ask.py]
#   CHECKPOINT  an adapter or a merged folder (default: the last checkpoint of OUTPUT, else the one trained last, else
#               the demo's model); MODEL the base model, where it has moved since training
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
choose_checkpoint
exec python "$ROOT/ask.py" "$@" ${CHECKPOINT:+--checkpoint "$CHECKPOINT"} ${MODEL:+--model "$MODEL"}
