# Sourced by dist_*.sh and slurm_*.sh: a Python that has torch, in $PYTHON, the number of GPUs that it sees, in
# $VISIBLE_GPUS, and the two ways to start processes.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"

count_gpus() { "$1" -c 'import torch; print(torch.cuda.device_count())' 2> /dev/null; }

PYTHON=${PYTHON:-python}
if ! VISIBLE_GPUS=$(count_gpus "$PYTHON"); then
  if ! VISIBLE_GPUS=$(count_gpus "$ROOT/.venv/bin/python"); then
    echo "error: $PYTHON cannot import torch; activate an environment or set PYTHON (see README.md)" >&2
    exit 1
  fi
  PYTHON=$ROOT/.venv/bin/python
fi
export PYTHON

fail() {
  echo "error: $1" >&2
  exit 2
}

# check_numbers NAME ...: of those of these variables that are set.
check_numbers() {
  local name
  for name in "$@"; do
    [[ ${!name:-0} =~ ^(0|[1-9][0-9]*)$ ]] || fail "$name=${!name} is not a whole number"
  done
}

# dist_launch TOOL COUNT ARGUMENT ...: COUNT files, then perhaps the number of processes, then options.
dist_launch() {
  local tool=$1 count=$2
  shift 2
  if [ $# -lt "$count" ]; then
    grep -m1 -o 'usage: .*' "$0" >&2
    exit 2
  fi
  local files=("${@:1:count}")
  shift "$count"
  local gpus=$VISIBLE_GPUS
  local processes=$((gpus > 0 ? gpus : 1))
  if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    processes=$1
    shift
  fi
  if ((processes < 1)) || ((gpus > 0 && processes > gpus)); then
    fail "$processes processes on a machine with $gpus GPUs; give at least 1 and at most one a GPU"
  fi
  check_numbers NNODES NODE_RANK PORT MAX_RESTARTS OMP_NUM_THREADS
  local port=${PORT:-29500} nodes=${NNODES:-1} node=${NODE_RANK:-0}
  if ((nodes > 1)) && [[ -z ${MASTER_ADDR:-} || -z ${NODE_RANK:-} ]]; then
    fail "NNODES=$NNODES needs NODE_RANK, from 0 on, and MASTER_ADDR, the address of machine 0"
  fi
  ((node < nodes)) || fail "NODE_RANK=$node must be below NNODES=$nodes"
  if ((node == 0)) && ! "$PYTHON" -c "import socket; socket.create_server(('', $port))" 2> /dev/null; then
    fail "port $port cannot be opened, perhaps because another run uses it; set PORT to another"
  fi
  if [ -z "${OMP_NUM_THREADS:-}" ]; then
    local threads=$(($(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN) / processes))
    export OMP_NUM_THREADS=$((threads > 0 ? threads : 1))
  fi
  export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}
  exec "$PYTHON" -m torch.distributed.run --nnodes="$nodes" --node_rank="$node" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" --nproc_per_node="$processes" \
    --max_restarts="${MAX_RESTARTS:-0}" \
    "$ROOT/tools/$tool" "${files[@]}" --launcher pytorch "$@"
}

# slurm_launch PARTITION JOB_NAME TOOL ARGUMENT ...: GPUS tasks, GPUS_PER_NODE on a node, CPUS_PER_TASK each.
slurm_launch() {
  local partition=$1 job=$2 tool=$3
  shift 3
  check_numbers GPUS GPUS_PER_NODE CPUS_PER_TASK PORT OMP_NUM_THREADS
  local gpus=${GPUS:-8}
  local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  local cpus=${CPUS_PER_TASK:-5}
  ((0 < per_node && per_node <= gpus)) || fail "GPUS_PER_NODE=$per_node is not from 1 to GPUS=$gpus"
  command -v srun > /dev/null || fail 'there is no srun here; without Slurm: dist_train.sh, dist_test.sh'
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus} MKL_NUM_THREADS=${MKL_NUM_THREADS:-$cpus}
  export MASTER_PORT=${PORT:-29500}
  # shellcheck disable=SC2086  # SRUN_ARGS is a list of words
  exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "$PYTHON" -u "$ROOT/tools/$tool" "$@" --launcher slurm
}
