#!/usr/bin/env bash
# Inference on every test channel in one model load, then the scores:
#   DATA=… bash shell/test.sh [--score likelihood] [flags of swift infer]
#   --score  generate (default), or likelihood: of tasks with a closed set of labels the likeliest label is the answer, and
#            every label gets a probability (docs/models.md, Ranked labels); other tasks' answers are generated
#   STAGE   stage1 or stage2 (default: the last one trained); CHECKPOINT another adapter folder
#   MERGED  a whole model instead of an adapter: a merged folder, with which BACKEND=vllm has vLLM answer (docs/models.md,
#           vLLM), or a base model as it was downloaded, for zero-shot answers
#   RESULT  the file of answers (default OUTPUT/<stage>.test.jsonl); an existing one is never appended to
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
need_data
export AMT_SCORE=generate
flags=()
while [ $# -gt 0 ]; do
    case "$1" in
        --score) AMT_SCORE="${2:-}" && shift ;;
        --score=*) AMT_SCORE="${1#*=}" ;;
        *) flags+=("$1") ;;
    esac
    [ $# = 0 ] || shift
done
set -- ${flags[@]+"${flags[@]}"}
[[ "$AMT_SCORE" =~ ^(generate|likelihood)$ ]] || fail "--score $AMT_SCORE is neither generate nor likelihood"
[ -n "${STAGE:-}" ] || { [ -n "$(last_checkpoint "$OUTPUT/stage2")" ] && STAGE=stage2 || STAGE=stage1; }
RESULT="${RESULT:-$OUTPUT/$STAGE.test.jsonl}"

if [ -n "${MERGED:-}" ]; then
    [ -f "$MERGED/config.json" ] || fail "MERGED=$MERGED: holds no config.json"
    kind="$(sed -n 's/^model_type: *\([^ #]*\).*/\1/p' "$CONFIG_DIR/stage1.yaml")"
    ASKED=(--model "$MERGED" --model_type "${kind:-emoverse}")
else
    CHECKPOINT="${CHECKPOINT:-$(last_checkpoint "$OUTPUT/$STAGE")}"
    [ -n "$CHECKPOINT" ] || fail "$OUTPUT/$STAGE holds no checkpoint; train first"
    [ -d "$CHECKPOINT" ] || fail "CHECKPOINT=$CHECKPOINT: no such folder"
    ASKED=(--adapters "$CHECKPOINT")
fi
[ ! -e "$RESULT" ] || fail "$RESULT exists and swift infer would append to it; move it away or set RESULT"
# Without a GPU ms-swift's processes answer a part of the rows each and write one part: one process there.
if [ "${NPROC_PER_NODE:-1}" -gt 1 ] && ! has_accelerator; then
    echo "no GPU here: one process answers all rows (NPROC_PER_NODE=$NPROC_PER_NODE is for GPUs)" >&2
    unset NPROC_PER_NODE
fi
hold_output
quiet
# swift infer writes as it goes: only a finished file gets the final name.
rm -f "$RESULT.part"
start=$SECONDS
swift infer "$CONFIG_DIR/infer.yaml" "${ASKED[@]}" --infer_backend "$BACKEND" --result_path "$RESULT.part" \
    --external_plugins "$PLUGIN" "$@"
mv "$RESULT.part" "$RESULT"
rows=$(wc -l <"$RESULT") seconds=$((SECONDS - start > 0 ? SECONDS - start : 1))
echo "answered $((rows)) rows in $seconds s, $((rows / seconds)).$((rows * 10 / seconds % 10)) rows/s with the model's loading"
scores=(--json "${RESULT%.jsonl}.scores.json" --report "${RESULT%.jsonl}.report")
# Where every test row was asked for, every one must be answered.
[[ " $* " == *" --val_dataset "* ]] || ! grep -q '^val_dataset: amt:test' "$CONFIG_DIR/infer.yaml" || scores+=(--require-all)
if [ -f "$AMT_DATA/report.train.json" ]; then scores+=(--built "$AMT_DATA/report.train.json"); fi
if [ "$STAGE" = stage2 ] && [ -s "$OUTPUT/stage1.test.jsonl" ]; then scores+=(--before "$OUTPUT/stage1.test.jsonl"); fi
python "$ROOT/compute_result.py" "$RESULT" "${scores[@]}"
