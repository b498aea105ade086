#!/usr/bin/env bash
# OpenFace from a Docker image, for `data_prep.fer --openface DIR`: link it into DIR under the names of both programs.
#   mkdir -p ~/openface && for name in FeatureExtraction FaceLandmarkVidMulti; do
#       ln -s "$PWD/shell/openface_docker.sh" ~/openface/$name; done
#   OPENFACE_IMAGE  the image (algebr/openface:latest, the one that OpenFace's wiki names)
#   OPENFACE_BIN    folder of the programs in the image (default: found through its PATH)
# The container sees the clip's folder (read only) and the output folder, and no network; it ends with this process.
set -euo pipefail
name=$(basename "$0")
case "$name" in
    FeatureExtraction | FaceLandmarkVidMulti) ;;
    *) echo "link $0 as FeatureExtraction and as FaceLandmarkVidMulti, see its head" >&2; exit 2 ;;
esac
mounts=()
for ((i = 1; i < $#; i++)); do
    value=${*:i+1:1}
    case "${!i}" in  # quotes: a path may hold a comma
        -f) folder=$(dirname "$value"); mounts+=(--mount "type=bind,\"source=$folder\",\"target=$folder\",readonly") ;;
        -out_dir) mounts+=(--mount "type=bind,\"source=$value\",\"target=$value\"") ;;
    esac
done
# exec and --init: a SIGTERM to this process reaches the program in the container.
exec docker run --rm --init --network none --user "$(id -u):$(id -g)" --workdir /tmp \
    --env OPENBLAS_NUM_THREADS=1 "${mounts[@]}" \
    "${OPENFACE_IMAGE:-algebr/openface:latest}" "${OPENFACE_BIN:+$OPENFACE_BIN/}$name" "$@"
