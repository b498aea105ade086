#!/usr/bin/env bash
# Serve a trained model over the OpenAI protocol: bash shell/serve.sh [flags of swift deploy]
#   CHECKPOINT  an adapter folder (default: the last checkpoint of stage 2, else of stage 1)
#   MERGED      a merged folder instead of an adapter; MODEL the base model, where it has moved since training
#   BACKEND     transformers (default) or vllm, which serves a merged folder (docs/models.md, vLLM)
#   HOST, PORT  where to listen (default 127.0.0.1:8000); it asks nobody for a key, so keep HOST local or behind a proxy
# Clients send clips and pictures as data URLs: tests/test_serving.py shows it with the openai package.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ -n "${MERGED:-}" ]; then
    [ -f "$MERGED/config.json" ] || fail "MERGED=$MERGED: holds no config.json"
    SERVED=(--model "$MERGED" --model_type emoverse)
else
    choose_checkpoint
    [ -n "$CHECKPOINT" ] || fail "$OUTPUT holds no checkpoint; train first, or set CHECKPOINT or MERGED"
    [ -f "$CHECKPOINT/adapter_config.json" ] || fail "CHECKPOINT=$CHECKPOINT: holds no adapter"
    SERVED=(--adapters "$CHECKPOINT" ${MODEL:+--model "$MODEL"})
fi
# Not `swift deploy`: that starts the server as a child and leaves it on the port when it is told to end.
exec python -m swift.cli.deploy "${SERVED[@]}" --served_model_name emoverse --infer_backend "$BACKEND" --temperature 0 \
    --host "${HOST:-127.0.0.1}" --port "${PORT:-8000}" --external_plugins "$PLUGIN" "$@"
