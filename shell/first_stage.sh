#!/usr/bin/env bash
# Stage 1, Multitask Pretraining: MODEL=… DATA=… bash shell/first_stage.sh [flags of swift sft]
#   MIXTURE  a stage of the mixtures file (default stage1), SIZE its number of rows (default: as configured)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_model
need_data
MIXTURE="${MIXTURE:-stage1}"

[ -z "$(last_checkpoint "$OUTPUT/stage1")" ] || fail "$OUTPUT/stage1 holds checkpoints already; set another OUTPUT"
python -m swift_plugins.mixture --stage "$MIXTURE" ${SIZE:+--size "$SIZE"}
swift sft "$CONFIG_DIR/stage1.yaml" --model "$MODEL" --dataset "amt:$MIXTURE${SIZE:+#$SIZE}" \
    --output_dir "$OUTPUT/stage1" --external_plugins "$PLUGIN" "$@"
