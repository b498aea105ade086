#!/usr/bin/env bash
# Stage 2, Multitask Reason Fine-tuning, from the last stage-1 checkpoint:
#   MODEL=… DATA=… bash shell/second_stage.sh [flags of swift sft]
#   MIXTURE  a stage of the mixtures file (default stage2), SIZE its number of rows (default: as configured)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_model
need_data
MIXTURE="${MIXTURE:-stage2}"
FIRST="$(last_checkpoint "$OUTPUT/stage1")"

[ -n "$FIRST" ] || fail "$OUTPUT/stage1 holds no checkpoint; run shell/first_stage.sh first"
[ -z "$(last_checkpoint "$OUTPUT/stage2")" ] || fail "$OUTPUT/stage2 holds checkpoints already; set another OUTPUT"
python -m swift_plugins.mixture --stage "$MIXTURE" ${SIZE:+--size "$SIZE"}
swift sft "$CONFIG_DIR/stage2.yaml" --model "$MODEL" --adapters "$FIRST" --dataset "amt:$MIXTURE${SIZE:+#$SIZE}" \
    --output_dir "$OUTPUT/stage2" --external_plugins "$PLUGIN" "$@"
