#!/usr/bin/env bash
# What a machine with a GPU, lent for minutes and without network, is asked to do, in two calls that fit.
#
#   bench/gpu.sh first               at most 400 s: build, tests, every operator at a GPU's size, memcheck
#   bench/gpu.sh second              at most 240 s: torch.compile beside us, racecheck; in the folder where first has built
#   bench/gpu.sh first --rehearse    the same stages here, the CUDA kernels in the emulator
#   options: --seconds N (another limit), --out DIR (else $OUT, else build/gpu), --dry-run
#
# Leaves three files, CALL.jsonl, CALL.md and CALL.log, whatever ends it: results are written as they come, and a table is
# made of them at the end, also where time runs out or a signal comes.
#
# Written for Python 3.12, torch 2.11, CUDA 13.0, Triton 3.6 and pytest-xdist. What is missing is named at once; expecttest
# usually is. Where there is network: pip download --no-deps -d wheels expecttest; and with the wheels at hand:
#   pip install --no-index --no-deps --target site wheels/*.whl; export PYTHONPATH=$PWD/site
set -uo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
refuse() { echo "bench/gpu.sh: $1" >&2; usage >&2; exit 2; }

PYTHON=${PYTHON:-python3}
CALL=${1:-}
case $CALL in
  first) LIMIT=400 ;;
  second) LIMIT=240 ;;
  -h | --help) usage; exit 0 ;;
  *) refuse "want first or second, got '${CALL}'" ;;
esac
shift
FOLDER=${OUT:-build/gpu} REHEARSE='' DRY=''
while [ $# -gt 0 ]; do
  case $1 in
    --rehearse) REHEARSE=--rehearse; shift ;;
    --seconds) LIMIT=${2:?--seconds wants a number}; shift 2 ;;
    --out) FOLDER=${2:?--out wants a folder}; shift 2 ;;
    --dry-run) DRY=1; shift ;;
    *) refuse "there is no $1" ;;
  esac
done

ROWS=$FOLDER/$CALL.jsonl LOG=$FOLDER/$CALL.log TABLE=$FOLDER/$CALL.md
PYTEST="$PYTHON -m pytest -q --maxfail=10"
# A checker makes every access many times slower: few tests, that reach every kernel, on few examples.
CHECKED="FCN_KERNELS_EXAMPLES=3 compute-sanitizer --error-exitcode 9 --target-processes all"
SHORT="$PYTEST tests/kernels -k 'cuda and write'"

# NAME, its limit in seconds, and the command, in order of value.
STAGES=()
stage() { STAGES+=("$1|$2|$3"); }
stage needs 10 "$PYTHON bench/gpu_needs.py $REHEARSE"
if [ -n "$REHEARSE" ]; then
  export FCN_KERNELS_EMULATE=1
  stage tests 60 "FCN_KERNELS_EXAMPLES=1 $PYTEST tests/kernels/test_emulator.py"
  stage cases 120 "$PYTHON bench/gpu_measure.py $CALL $ROWS --seconds 100 --rehearse"
else
  if [ "$CALL" = first ]; then
    # For the GPU that is here alone: seconds instead of minutes for each further one.
    stage build 130 "nvidia-smi; FCN_KERNELS_CUDA=ON FCN_KERNELS_CUDA_ARCHS=\$($PYTHON -c 'import torch; print(\"%d%d\" % torch.cuda.get_device_capability())') $PYTHON setup.py -q build_ext --inplace && $PYTHON -m fcn_kernels"
    stage launches 50 "$PYTEST tests/kernels/test_gpu.py tests/kernels/test_cuda_launches.py"
    stage cases 130 "$PYTHON bench/gpu_measure.py first $ROWS --seconds 110"
    # Four: some tests want 4 GB.
    stage suite 80 "FCN_KERNELS_EXAMPLES=8 $PYTEST -n 4 tests/kernels -k 'cuda and not test_gpu'"
    stage triton 60 "FCN_KERNELS_EXAMPLES=2 $PYTEST -n 4 tests/kernels -k 'triton and write'"
    stage memcheck 60 "PYTORCH_NO_CUDA_MEMORY_CACHING=1 $CHECKED --tool memcheck $SHORT"
  else
    stage built 10 "$PYTHON -c 'from fcn_kernels import backend; reason = backend.why_not(\"cuda\"); raise SystemExit(reason and \"run first: \" + reason)'"
    stage cases 100 "$PYTHON bench/gpu_measure.py second $ROWS --seconds 80"
    stage racecheck 120 "$CHECKED --tool racecheck $SHORT"
  fi
fi
if [ -n "$DRY" ]; then
  for each in "${STAGES[@]}"; do IFS='|' read -r name limit command <<<"$each"; printf '%-10s %4s s  %s\n' "$name" "$limit" "$command"; done
  echo "at most $LIMIT s in all; results in $ROWS, $TABLE and $LOG"
  exit 0
fi

mkdir -p "$FOLDER"
: >"$LOG"
: >"$ROWS"
child='' failed=0 name=''
note() {  # RESULT SECONDS LAST
  $PYTHON -c 'import json, sys; print(json.dumps(dict(zip(("kind", "name", "result", "seconds", "last"), sys.argv[1:]))))' \
    stage "$name" "$1" "$2" "$3" >>"$ROWS"
}
finish() {
  trap - EXIT INT TERM
  if [ -n "$child" ]; then
    kill -TERM -- "-$child" 2>/dev/null
    note interrupted $((SECONDS - began)) ''
    failed=1
  fi
  $PYTHON bench/gpu_report.py "$ROWS" >"$TABLE" && cat "$TABLE"
  exit $failed
}
trap finish EXIT INT TERM
set -m  # a stage is a process group, so that all of it can be ended

for each in "${STAGES[@]}"; do
  IFS='|' read -r name limit command <<<"$each"
  left=$((LIMIT - SECONDS - 5))  # seconds for the table
  if [ "$left" -lt 2 ]; then note 'no time left' 0 ''; failed=1; continue; fi
  [ "$limit" -lt "$left" ] || limit=$left
  echo "== $name ($limit s): $command" | tee -a "$LOG"
  began=$SECONDS mark=$(wc -l <"$LOG")
  timeout --signal=INT --kill-after=3 "$limit" bash -c "$command" >>"$LOG" 2>&1 &
  child=$!
  wait "$child"
  status=$?
  child=''
  case $status in 0) result=passed ;; 124 | 130 | 137) result='too long' ;; *) result=FAILED ;; esac
  [ "$status" = 0 ] || failed=1
  last=$(tail -n "+$((mark + 1))" "$LOG" | grep -v '^[[:space:]]*$' | tail -1 | cut -c1-100)
  note "$result" $((SECONDS - began)) "$last"
  echo "   $result, $((SECONDS - began)) s: $last"
done
