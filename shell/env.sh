# Sourced by the other scripts: what they take from the environment, and where things are.
#
#   CONFIG   a folder of configs/ (default emoverse-4b), or a folder of your own with the same files
#   MODEL    folder of the base model, as downloaded
#   DATA     folder of AMT rows that data_prep.build_amt wrote      (exported as AMT_DATA)
#   OUTPUT   where checkpoints and results go (default output/<config>, in the current folder when installed)
#   SEED     of the draw and of the training, instead of the seeds of the configuration
#   PRESET   batches for a GPU of this size: 24gb, 48gb, 80gb, 140gb (configs/presets), or a file of your own
#   AMT_CACHE  folder of prepared clips and of the lengths of rows (default output/cache; empty: none), AMT_CACHE_GB at
#              most (50; never more than half of the free disk)
#   AMT_FEATURES  folder of what the vision tower saw (docs/models.md, Prepared media)
#   AMT_MAX_NEW_TOKENS  most tokens of an answer by task, mer=8,msa=8 (docs/models.md, Shorter answers); default none
#   VERBOSE=1  all that ms-swift says on the screen; else warnings, and the rest of a training in OUTPUT/<stage>.log
set -euo pipefail

case "${1:-}" in -h | --help) # what stands at the top of the script that was called, and of this file
    for script in "$0" "${BASH_SOURCE[0]}"; do
        sed -n '/^#!/d; /^#/!q; s/^# \{0,1\}//p' "$script"
    done
    exit 0 ;;
esac

SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CONFIGS="$(dirname "$SCRIPTS")/configs"
ROOT="$(dirname "$SCRIPTS")"
WORK="$ROOT"
if [ ! -d "$ROOT/swift_plugins" ]; then # installed: configs and scripts lie inside the package swift_plugins
    ROOT="$(dirname "$ROOT")"
    WORK="$PWD"
fi
CONFIG="${CONFIG:-emoverse-4b}"
CONFIG_DIR="$CONFIG"
[ -d "$CONFIGS/$CONFIG" ] && CONFIG_DIR="$CONFIGS/$CONFIG"
OUTPUT="${OUTPUT:-$WORK/output/$(basename "$CONFIG_DIR")}"
PLUGIN="$ROOT/swift_plugins/emoverse.py"
export AMT_CACHE="${AMT_CACHE-$WORK/output/cache}"

# The project's own environment, unless another one is active.
if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && [ -x "$ROOT/.venv/bin/swift" ]; then
    PATH="$ROOT/.venv/bin:$PATH"
fi
[ "$WORK" != "$ROOT" ] || export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export PATH
export TOKENIZERS_PARALLELISM=false

fail() {
    echo "error: $*" >&2
    exit 2
}

[ -d "$CONFIG_DIR" ] || fail "CONFIG=$CONFIG is neither a folder of $CONFIGS nor a folder"
[ ! -e "$OUTPUT" ] || [ -d "$OUTPUT" ] || fail "OUTPUT=$OUTPUT is a file, not a folder"
BACKEND="${BACKEND:-transformers}" # what answers: test.sh, serve.sh
[[ "$BACKEND" =~ ^(transformers|vllm)$ ]] || fail "BACKEND=$BACKEND is neither transformers nor vllm"
[ -n "${DATA:-${AMT_DATA:-}}" ] && export AMT_DATA="${DATA:-$AMT_DATA}"
if [ -z "${AMT_MIXTURES:-}" ] && [ -f "$CONFIG_DIR/mixtures.yaml" ]; then
    export AMT_MIXTURES="$CONFIG_DIR/mixtures.yaml"
fi

[ -z "${SEED:-}" ] || export AMT_SEED="$SEED"

need_data() {
    [ -n "${AMT_DATA:-}" ] || fail "set DATA to the folder that data_prep.build_amt wrote"
    [ -d "$AMT_DATA" ] || fail "DATA=$AMT_DATA: no such folder"
}

need_model() {
    [ -n "${MODEL:-}" ] || fail "set MODEL to the folder of the base model"
    [ -f "$MODEL/config.json" ] || fail "MODEL=$MODEL: holds no config.json"
}

# Of what ms-swift says the warnings alone, unless VERBOSE=1.
quiet() {
    [ "${VERBOSE:-0}" = 1 ] || export LOG_LEVEL="${LOG_LEVEL:-WARNING}"
}

# One script at a time writes to OUTPUT: it holds OUTPUT/.lock until it ends, however it ends. The scripts that it runs
# have its lock. (Training and inference lock what they write to as well, whoever starts them: swift_plugins/runs.py.)
hold_output() {
    [ "${OUTPUT_HELD:-}" != "$OUTPUT" ] || return 0
    { mkdir -p "$OUTPUT" && [ -w "$OUTPUT" ]; } 2>/dev/null || fail "OUTPUT=$OUTPUT cannot be written to"
    exec {HELD}>>"$OUTPUT/.lock"
    python -c 'import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)' "$HELD" 2>/dev/null ||
        fail "OUTPUT=$OUTPUT: another run is writing there"
    export OUTPUT_HELD="$OUTPUT"
}

# The mixture that the configuration names for stage $1: amt:el_coarse in its `dataset`.
mixture_of() {
    local named
    named="$(sed -n 's/^dataset: *amt:\([^ #]*\).*/\1/p' "$CONFIG_DIR/$1.yaml" 2>/dev/null || true)"
    echo "${named:-$1}"
}

# The whole checkpoint of a stage that was saved last; empty when there is none. trainer_state.json is written at the
# end of a save, so a folder without it, or without its last line, was cut off by a kill or a full disk.
last_checkpoint() {
    local state
    for state in "$1"/checkpoint-*/trainer_state.json; do
        [ ! -f "$state" ] || [ "$(tail -n 1 "$state")" != "}" ] || dirname "$state"
    done | sort -V | tail -n 1
}

# CHECKPOINT: the one that was given, else the last of stage 2, else of stage 1; empty when there is none.
choose_checkpoint() {
    CHECKPOINT="${CHECKPOINT:-$(last_checkpoint "$OUTPUT/stage2")}"
    CHECKPOINT="${CHECKPOINT:-$(last_checkpoint "$OUTPUT/stage1")}"
}

# Whether PyTorch finds a GPU or another accelerator.
has_accelerator() {
    python -c 'import sys, torch; sys.exit(not torch.accelerator.is_available())'
}

# FLAGS of swift sft that start training in folder $1, or with RESUME=1 go on from its last whole checkpoint with the
# same optimizer, random state and data order. DEEPSPEED is zero2 or zero3 (ms-swift's own settings), or a file.
# Processes are ms-swift's: NPROC_PER_NODE, and for several machines NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT. They
# share the batch of the settings (swift_plugins/batches.py). Flags of swift sft come later and win.
training_flags() {
    local last
    last="$(last_checkpoint "$1")"
    FLAGS=()
    if [ -n "$last" ]; then
        [ "${RESUME:-0}" = 1 ] || fail "$1 holds checkpoints already; RESUME=1 goes on from the last, or set another OUTPUT"
        FLAGS+=(--resume_from_checkpoint "$last")
    fi
    if [ -n "${DEEPSPEED:-}" ]; then
        [[ "$DEEPSPEED" =~ ^zero[23]$ ]] || [ -f "$DEEPSPEED" ] || fail "DEEPSPEED=$DEEPSPEED is not zero2, zero3 or a file"
        has_accelerator || fail "DEEPSPEED=$DEEPSPEED is for GPUs, and there is none here"
        python -c 'import deepspeed' 2>/dev/null || fail "DEEPSPEED=$DEEPSPEED needs the package deepspeed"
        FLAGS+=(--deepspeed "$DEEPSPEED")
        export NPROC_PER_NODE="${NPROC_PER_NODE:-1}" # a process that torchrun did not start would ask for MPI
    fi
}

# Plan mixture $MIXTURE and train it into $OUTPUT/$1 with the settings of $CONFIG_DIR/$1.yaml, FLAGS and the flags that
# follow; stops before it starts when rows would be dropped, unless ALLOW_LONG=1. The training takes the place of the
# script, so who ends the script ends it.
run_stage() {
    local stage="$1" more=()
    shift
    [ -f "$CONFIG_DIR/$stage.yaml" ] || fail "CONFIG=$CONFIG holds no $stage.yaml"
    python -m swift_plugins.mixture --stage "$MIXTURE" ${SIZE:+--size "$SIZE"}
    hold_output
    [ "${ALLOW_LONG:-0}" != 1 ] || more+=(--allow-long)
    [ "${VERBOSE:-0}" != 1 ] || more+=(--verbose)
    [ -z "${PRESET:-}" ] || more+=(--preset "$PRESET")
    exec python -m swift_plugins.run_stage --config "$CONFIG_DIR" --settings "$stage" --stage "$MIXTURE" \
        --model "$MODEL" --output "$OUTPUT/$stage" ${SIZE:+--size "$SIZE"} ${more[@]+"${more[@]}"} -- \
        ${FLAGS[@]+"${FLAGS[@]}"} ${SEED:+--seed "$SEED" --data_seed "$SEED"} "$@"
}
