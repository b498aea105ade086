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
# stage FUSION SEED COMMAND…: into a folder of its own.
stage() {
    local fusion="$1" run="$OUTPUT/$1/$2"
    shift 2
    AMT_FEATURES="$OUTPUT/features" MODEL="$OUTPUT/base-$fusion" OUTPUT="$run" OUTPUT_HELD='' "$@"
}
# A base without fusion has no layers of it to train.
train() {
    local script="$1" fusion="$2" seed="$3" more=()
    [ "$fusion" != none ] ||
        more=(--modules_to_save llama_proj llama_proj_video llama_proj_audio embed_tokens lm_head)
    SIZE="$4" NPROC_PER_NODE="${processes:-${NPROC_PER_NODE:-1}}" stage "$fusion" "$seed" bash "$SCRIPTS/$script" --seed "$seed" --data_seed "$seed" ${more[@]+"${more[@]}"}
}
# Two processes share the work where there are cores for them.
if [ "$(getconf _NPROCESSORS_ONLN)" -gt 1 ] && ! has_accelerator; then processes="${NPROC_PER_NODE:-2}"; fi
answer() {
    STAGE="$1" bash "$SCRIPTS/test.sh"
}

step "Generate synthetic sets: tables, clips with voices" "$tables" generate
step "AMT: tables to instruction rows" "$DATA/report.test.json" build
step "A base that knows nothing, from files as published" "$OUTPUT/base-conv-attention/config.json" base
step "EVA-CLIP and Whisper: features for every clip" "$OUTPUT/features/complete" encode
for seed in "${seeds[@]}"; do
    for fusion in conv-attention none; do
        run="$OUTPUT/$fusion/$seed" name="seed $seed, fusion $fusion"
        step "$name: stage 1, perception" "$run/stage1.test.jsonl" train first_stage.sh "$fusion" "$seed" 3600
        step "$name: answers after stage 1" "$run/stage1.test.jsonl" stage "$fusion" "$seed" answer stage1
        step "$name: stage 2, cognition" "$run/stage2.test.jsonl" train second_stage.sh "$fusion" "$seed" 1200
        step "$name: answers after stage 2" "$run/stage2.test.jsonl" stage "$fusion" "$seed" answer stage2
    done
done

printf '\nHeld-out clips, in per cent (all figures: %s/*/*/stage*.test.scores.json)\n' "$OUTPUT"
python -m data_prep.demo.summary "$OUTPUT" --curriculum
echo "done after $SECONDS s"
