#!/usr/bin/env bash
# The app in a browser on this machine: bash shell/app.sh [options of python -m app]
#   CHECKPOINT  an adapter or a merged folder (default: the last checkpoint of OUTPUT, else the one trained last, else
#               the demo's model); MODEL the base model, where it has moved since training
#   DATA        browse the AMT rows of this folder; AMT_MEDIA the folder of their clips
#   HOST, PORT  where to listen (default 127.0.0.1:7860); it asks nobody for a password, so keep HOST local
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
choose_checkpoint
exec python -m app ${CHECKPOINT:+--checkpoint "$CHECKPOINT"} ${MODEL:+--model "$MODEL"} \
    ${AMT_DATA:+--data "$AMT_DATA"} --host "${HOST:-127.0.0.1}" --port "${PORT:-7860}" "$@"
