#!/usr/bin/env bash
# Emotion-LLaMAv2's curriculum on synthetic sets in MMEVerse's tables: both stages, with its fusion and without.
#   bash shell/emotion_llama_v2_demo.sh [SEED…]      one training of each kind for every seed (default 42)
#   OUTPUT     where everything goes (default output/emotion-llama-v2-demo); run again after a kill, it goes on where it was
#   VERBOSE=1  everything that the steps print; else it goes to OUTPUT/logs
CONFIG=emotion-llama-v2-demo
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
# On a few cores, threads that wait for each other cost more than they bring to a model this small.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export CONFIG DATA="$OUTPUT/amt" RESUME=1
export LOG_LEVEL="${LOG_LEVEL:-WARNING}" # of ms-swift, which else prints every layer of the model
export AMT_MAX_NEW_TOKENS="${AMT_MAX_NEW_TOKENS-mer=12,msa=12,intent=12,ov=16,mlmer=32}" # of these labels, all there is to say
unset AMT_ENCODERS
seeds=("${@:-42}")
tables="$OUTPUT/raw/mmeverse" files="$OUTPUT/files" heads=4
hold_output
source "$SCRIPTS/steps.sh"

generate() {
    rm -rf "$OUTPUT/raw.part" "$OUTPUT"/.raw.part.* # of a kill
    python -m data_prep.demo --out "$OUTPUT/raw.part" --sound --mmeverse
    mv "$OUTPUT/raw.part" "$OUTPUT/raw"
}
build() {
    for split in train test; do
        python -m data_prep.build_amt --split "$split" --mmeverse "$tables" --out "$DATA" --media-root "$OUTPUT" \
            --prompts "$CONFIG_DIR/prompts.yaml"
    done
}
# Of what is published the language model and the image encoder; the fusion is new either way.
base() {
    rm -rf "$files" "$OUTPUT/eva_video" "$OUTPUT"/base-*
    python -m data_prep.demo.emotion_llama --rows "$DATA" --out "$files"
    python -m swift_plugins.emotion_llama.convert video --eva "$files/eva.pth" --heads "$heads" --out "$OUTPUT/eva_video"
    for fusion in none conv-attention; do
        python -m swift_plugins.emotion_llama.convert base --variant 2 --fusion "$fusion" --eva "$files/eva.pth" \
            --llama "$files/llama" --heads "$heads" --image-size 56 --set audio_width=64 --out "$OUTPUT/base-$fusion"
    done
}
encode() {
    python -m data_prep.features --encoder eva_video --model "$OUTPUT/eva_video" --rows "$DATA" --out "$OUTPUT/features"
    python -m data_prep.features --encoder whisper --model "$files/whisper" --rows "$DATA" --out "$OUTPUT/features"
    touch "$OUTPUT/features/complete"
}
# both STAGE COMMAND… for each fusion, side by side where there are cores for it; what has its answers is left alone.
both() {
    local stage="$1" fusion runs=()
    shift
    trap 'kill ${runs[@]+"${runs[@]}"} 2>/dev/null || true' EXIT
    for fusion in conv-attention none; do
        [ ! -e "$OUTPUT/$fusion/$seed/$stage.test.jsonl" ] || continue
        "$@" "$fusion" "$stage" &
        runs+=($!)
        [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ] || wait "$!"
    done
    for run in ${runs[@]+"${runs[@]}"}; do wait "$run"; done
    runs=()
}
# with FUSION COMMAND…: into a folder of its own.
with() {
    local fusion="$1"
    shift
    AMT_FEATURES="$OUTPUT/features" MODEL="$OUTPUT/base-$fusion" OUTPUT="$OUTPUT/$fusion/$seed" OUTPUT_HELD='' "$@"
}
# A base without fusion has no layers of it to train.
train() {
    local script=first_stage.sh more=()
    [ "$3" = stage1 ] || script=second_stage.sh
    [ "$2" != none ] || more=(--modules_to_save llama_proj llama_proj_video llama_proj_audio embed_tokens lm_head)
    SIZE="$1" with "$2" bash "$SCRIPTS/$script" --seed "$seed" --data_seed "$seed" ${more[@]+"${more[@]}"}
}
answer() {
    STAGE="$2" with "$1" bash "$SCRIPTS/test.sh"
}

step "Generate synthetic sets: tables, clips with voices" "$tables" generate
step "AMT: tables to instruction rows" "$DATA/report.test.json" build
step "A base that knows nothing, from files as published" "$OUTPUT/base-conv-attention/config.json" base
step "EVA-CLIP and Whisper: features for every clip" "$OUTPUT/features/complete" encode
for seed in "${seeds[@]}"; do
    step "Seed $seed: stage 1, perception, with fusion and without" "$OUTPUT/none/$seed/stage1.test.jsonl" \
        both stage1 train 3600
    step "Seed $seed: answers after stage 1" "$OUTPUT/none/$seed/stage1.test.jsonl" both stage1 answer
    step "Seed $seed: stage 2, cognition, with fusion and without" "$OUTPUT/none/$seed/stage2.test.jsonl" \
        both stage2 train 1200
    step "Seed $seed: answers after stage 2" "$OUTPUT/none/$seed/stage2.test.jsonl" both stage2 answer
done

printf '\nHeld-out clips, in per cent (all figures: %s/*/*/stage*.test.scores.json)\n' "$OUTPUT"
python -m data_prep.demo.summary "$OUTPUT" --curriculum
echo "done after $SECONDS s"
