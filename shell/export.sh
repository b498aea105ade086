#!/usr/bin/env bash
# Merge an adapter into its base model, as a folder that stock transformers loads:
#   bash shell/export.sh [flags of swift export]
#   CHECKPOINT  the adapter folder (default: the last checkpoint of stage 2, else of stage 1)
#   MERGED      the folder to write (default OUTPUT/merged)
#   MODEL       the base model, where it has moved since training
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
CHECKPOINT="${CHECKPOINT:-$(last_checkpoint "$OUTPUT/stage2")}"
CHECKPOINT="${CHECKPOINT:-$(last_checkpoint "$OUTPUT/stage1")}"
MERGED="${MERGED:-$OUTPUT/merged}"

[ -n "$CHECKPOINT" ] || fail "$OUTPUT holds no checkpoint; train first"
[ -f "$CHECKPOINT/adapter_config.json" ] || fail "CHECKPOINT=$CHECKPOINT: holds no adapter"
[ ! -e "$MERGED" ] || fail "$MERGED exists; move it away or set MERGED"
hold_output
# Only a finished folder gets the final name.
rm -rf "$MERGED.part"
swift export --adapters "$CHECKPOINT" ${MODEL:+--model "$MODEL"} --merge_lora true --output_dir "$MERGED.part" \
    --external_plugins "$PLUGIN" "$@"
python -m swift_plugins.internvl2 "$MERGED.part"
mv "$MERGED.part" "$MERGED"
echo "merged model: $MERGED"
