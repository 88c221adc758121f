#!/usr/bin/env bash
# Builds, tests and measures everything on a machine with a GPU, which needs no network: one command, a summary last.
#
#   bench/gpu.sh                            all stages, in order; files under build/gpu
#   bench/gpu.sh --stage build,test-cuda    some of them
#   bench/gpu.sh --out DIR --dry-run        what would run
#
# Written for Python 3.12, torch 2.11, CUDA 13.0 and Triton 3.6. Each stage ends within ten minutes, or is ended.
#
# What such a machine may lack must be brought along as wheels and be on PYTHONPATH or installed; the stage `needs` says
# which of them are missing:
#   to build     setuptools>=77 pybind11 cmake ninja
#   to test      pytest iniconfig pluggy hypothesis sortedcontainers expecttest
#   to measure   rich markdown-it-py mdurl pygments tqdm matplotlib
# On a machine with network: pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels NAME ...
# and here: pip install --no-index --no-deps --target site wheels/*.whl; export PYTHONPATH=$PWD/site
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=build/gpu
ALL=needs,info,build,test-cuda,test-triton,gpu,large,memcheck,racecheck,report,bench
STAGES=$ALL
DRY=
LIMIT=590

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; echo "stages: ${ALL//,/ }"; }
while [ $# -gt 0 ]; do
  case $1 in
    --stage) STAGES=${2:?--stage wants names with commas between them}; shift 2 ;;
    --out) OUT=${2:?--out wants a folder}; shift 2 ;;
    --dry-run) DRY=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "bench/gpu.sh: there is no $1" >&2; usage >&2; exit 2 ;;
  esac
done

PYTEST="$PYTHON -m pytest -q --maxfail=20 --durations=5"
# A few tests that reach every kernel, on few examples: a checker makes every access many times slower.
SHORT="$PYTEST tests/kernels -k 'cuda and write'"
CHECKED="FCN_KERNELS_EXAMPLES=5 compute-sanitizer --error-exitcode 9 --target-processes all"

stage() {
  case $1 in
    needs) echo "$PYTHON bench/gpu_needs.py" ;;
    info) echo "nvidia-smi; nvcc --version; $PYTHON -m fcn_kernels" ;;
    # For the GPU that is here alone: seconds instead of minutes for each further one.
    build) echo "FCN_KERNELS_CUDA=ON FCN_KERNELS_CUDA_ARCHS=\$($PYTHON -c 'import torch; print(\"%d%d\" % torch.cuda.get_device_capability())')" \
      "$PYTHON -m pip install --no-build-isolation --no-deps --editable . && $PYTHON -m fcn_kernels" ;;
    test-cuda) echo "$PYTEST tests/kernels -k 'cuda and not test_gpu'" ;;
    test-triton) echo "$PYTEST tests/kernels -k 'triton and not test_gpu'" ;;
    gpu) echo "$PYTEST tests/kernels/test_gpu.py" ;;
    large) echo "$PYTEST -m slow tests/kernels/test_gpu.py" ;;
    # Memory of its own for every tensor, so that a neighbour's is out of bounds.
    memcheck) echo "PYTORCH_NO_CUDA_MEMORY_CACHING=1 $CHECKED --tool memcheck $SHORT" ;;
    racecheck) echo "$CHECKED --tool racecheck $SHORT" ;;
    report) echo "$PYTHON -m fcn_kernels.compile_report" ;;
    bench) echo "$PYTHON bench/run.py --device cuda --case all --out $OUT/cuda.json --plot $OUT" ;;
    *) return 1 ;;
  esac
}

IFS=, read -ra chosen <<<"$STAGES"
for name in "${chosen[@]}"; do
  stage "$name" >/dev/null || { echo "bench/gpu.sh: there is no stage $name" >&2; usage >&2; exit 2; }
done
if [ -n "$DRY" ]; then
  for name in "${chosen[@]}"; do printf '%-12s %s\n' "$name" "$(stage "$name")"; done
  echo "each for at most $LIMIT s; logs in $OUT/STAGE.log, the summary in $OUT/summary.txt"
  exit 0
fi

mkdir -p "$OUT"
failed=0
{ printf '%-12s %-8s %8s  %s\n' stage result seconds last; } >"$OUT/summary.txt"
for name in "${chosen[@]}"; do
  echo "== $name: $(stage "$name")"
  began=$SECONDS
  timeout --signal=INT --kill-after=20 $LIMIT bash -c "$(stage "$name")" 2>&1 | tee "$OUT/$name.log"
  status=${PIPESTATUS[0]}
  case $status in 0) result=passed ;; 124 | 130 | 137) result='too long' ;; *) result=FAILED ;; esac
  [ "$status" = 0 ] || failed=1
  last=$(grep -v '^[[:space:]]*$' "$OUT/$name.log" | tail -1 | cut -c1-90)
  printf '%-12s %-8s %8s  %s\n' "$name" "$result" $((SECONDS - began)) "$last" >>"$OUT/summary.txt"
done
echo
cat "$OUT/summary.txt"
exit $failed
