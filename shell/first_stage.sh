#!/usr/bin/env bash
# Stage 1, Multitask Pretraining: MODEL=… DATA=… bash shell/first_stage.sh [flags of swift sft]
#   MIXTURE  a stage of the mixtures file (default: what the configuration names), SIZE its number of rows (default: as configured)
#   RESUME=1, NPROC_PER_NODE, DEEPSPEED  go on after a kill; several processes (env.sh)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_model
need_data
MIXTURE="${MIXTURE:-$(mixture_of stage1)}"

training_flags "$OUTPUT/stage1"
run_stage stage1 "$@"
