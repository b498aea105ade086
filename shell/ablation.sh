#!/usr/bin/env bash
# The paper's Tables 2, 3 and 5 for a configuration: every variant of configs/ablation.yaml for every seed (default 1):
#   MODEL=… DATA=… bash shell/ablation.sh CONFIG [SEED…] [--dry-run] [--only VARIANT…] [--jobs N]
#   OUTPUT   where the runs go (default output/CONFIG); those that are finished there are skipped
#   ablation-demo needs neither MODEL nor DATA: it generates a synthetic dataset first
case "${1:-}" in
    -h | --help | "") CONFIG=ablation-demo ;;
    *) CONFIG="$1" && shift ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
if [ -f "$CONFIG_DIR/checkpoint/config.json" ]; then
    MODEL="${MODEL:-$CONFIG_DIR/checkpoint}"
    if [ -z "${AMT_DATA:-}" ]; then
        export DATA="$OUTPUT/amt" AMT_DATA="$OUTPUT/amt"
        hold_output
        source "$SCRIPTS/steps.sh"
        source "$SCRIPTS/synthetic.sh"
        step "Generate a synthetic dataset: clips, dialogues, Action Units" "$raw" generate --size ablation
        step "FER: peak frames and captions from the Action Units" "$raw/meld/fer.jsonl" faces
        step "AMT: raw folders to instruction rows" "$DATA/report.test.json" build
    fi
fi
need_model
need_data
hold_output
export LOG_LEVEL="${LOG_LEVEL:-WARNING}"
exec python -m swift_plugins.ablation --config "$CONFIG_DIR" --model "$MODEL" --output "$OUTPUT" "$@"
