#!/usr/bin/env bash
# Merge an adapter into its base model, as a folder that stock transformers loads:
#   bash shell/export.sh [flags of swift export]
#   CHECKPOINT  the adapter folder (default: the last checkpoint of stage 2, else of stage 1)
#   MERGED      the folder to write (default OUTPUT/merged)
#   MODEL       the base model, where it has moved since training
#   DATA        the AMT rows of the training; with OUTPUT's scores they stand in the model card (MERGED/README.md)
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
choose_checkpoint
MERGED="${MERGED:-$OUTPUT/merged}"

[ -n "$CHECKPOINT" ] || fail "$OUTPUT holds no checkpoint; train first"
[ -f "$CHECKPOINT/adapter_config.json" ] || fail "CHECKPOINT=$CHECKPOINT: holds no adapter"
[ ! -e "$MERGED" ] || fail "$MERGED exists; move it away or set MERGED"
hold_output
quiet
# Only a finished folder gets the final name.
rm -rf "$MERGED.part"
swift export --adapters "$CHECKPOINT" ${MODEL:+--model "$MODEL"} --merge_lora true --output_dir "$MERGED.part" \
    --external_plugins "$PLUGIN" "$@"
python -m swift_plugins.complete_export "$MERGED.part"
card=(--checkpoint "$CHECKPOINT")
if [ -d "${AMT_DATA:-}" ]; then card+=(--data "$AMT_DATA"); fi
stage="$(basename "$(dirname "$CHECKPOINT")")"
if [ -s "$OUTPUT/$stage.test.scores.json" ]; then card+=(--scores "$OUTPUT/$stage.test.scores.json"); fi
python -m swift_plugins.model_card "$MERGED.part" "${card[@]}"
mv "$MERGED.part" "$MERGED"
echo "merged model: $MERGED"
