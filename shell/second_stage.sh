#!/usr/bin/env bash
# Stage 2, Multitask Reason Fine-tuning, from the last stage-1 checkpoint:
#   MODEL=… DATA=… bash shell/second_stage.sh [flags of swift sft]
#   MIXTURE  a stage of the mixtures file (default: what the configuration names), SIZE its number of rows (default: as configured)
#   MERGE=1  merge the stage-1 adapter into OUTPUT/stage1-merged and train a new adapter on it. By default the stage-1
#            adapter itself goes on training: one adapter holds both stages and fits the downloaded MODEL. After a merge
#            the stage-2 adapter fits the merged folder only, and stage 1 has its full rank to itself.
#   FIRST    the checkpoint of stage 1 (default: the last one in OUTPUT/stage1)
#   RESUME=1, NPROC_PER_NODE, DEEPSPEED  go on after a kill; several processes (env.sh)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_model
need_data
MIXTURE="${MIXTURE:-$(mixture_of stage2)}"
FIRST="${FIRST:-$(last_checkpoint "$OUTPUT/stage1")}"

[ -n "$FIRST" ] || fail "$OUTPUT/stage1 holds no checkpoint; run shell/first_stage.sh first"
hold_output
training_flags "$OUTPUT/stage2"
ADAPTER=(--adapters "$FIRST")
[[ " ${FLAGS[*]-} " != *" --resume_from_checkpoint "* ]] || ADAPTER=() # that checkpoint is the adapter
if [ "${MERGE:-0}" = 1 ]; then
    [ -f "$OUTPUT/stage1-merged/config.json" ] ||
        env -u NPROC_PER_NODE CHECKPOINT="$FIRST" MERGED="$OUTPUT/stage1-merged" bash "$SCRIPTS/export.sh"
    MODEL="$OUTPUT/stage1-merged"
    ADAPTER=()
fi
run_stage stage2 ${ADAPTER[@]+"${ADAPTER[@]}"} "$@"
