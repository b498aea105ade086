#!/usr/bin/env bash
# Stage 1, Multitask Pretraining: MODEL=… DATA=… bash shell/first_stage.sh [flags of swift sft]
#   MIXTURE  a stage of the mixtures file (default stage1), SIZE its number of rows (default: as configured)
#   RESUME=1, NPROC_PER_NODE, DEEPSPEED  go on after a kill; several processes (env.sh)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_model
need_data
MIXTURE="${MIXTURE:-stage1}"

training_flags "$OUTPUT/stage1"
python -m swift_plugins.mixture --stage "$MIXTURE" ${SIZE:+--size "$SIZE"}
python -m data_prep.doctor --tokens "$MODEL" --config "$CONFIG_DIR" --stage "$MIXTURE" --settings stage1 \
    ${SIZE:+--size "$SIZE"} -- "$@" || [ "${ALLOW_LONG:-0}" = 1 ] ||
    fail "rows longer than max_length cannot be trained on: raise --max_length, or set ALLOW_LONG=1"
swift sft "$CONFIG_DIR/stage1.yaml" --model "$MODEL" --dataset "amt:$MIXTURE${SIZE:+#$SIZE}" \
    --output_dir "$OUTPUT/stage1" --external_plugins "$PLUGIN" ${FLAGS[@]+"${FLAGS[@]}"} "$@"
