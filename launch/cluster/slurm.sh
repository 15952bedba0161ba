#!/usr/bin/env bash
# A study on a Slurm cluster: Ray on all nodes of the job, its driver on the first one.
#
# Cost: what your site charges for the nodes and hours below.
#
#   up and submit  sbatch launch/cluster/slurm.sh --dataset awa --data-dir /shared/awa --name mine
#   watch          tail -f bbam-ray-<job>.out; bbam-ray watch results/awa/mine
#   down           scancel <job>; run the same command with --resume to resume
#
# Change: nodes, GPUs and time; the modules that your site needs. Run it from the repository, after `make demo` or
# `make test` has created .venv in a folder that all nodes share.
#SBATCH --job-name=bbam-ray
#SBATCH --output=bbam-ray-%j.out
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

bin="${SLURM_SUBMIT_DIR:?start it with sbatch}/.venv/bin"
cd "$SLURM_SUBMIT_DIR"
# A token for this job, readable only by its owner.
state="$SLURM_SUBMIT_DIR/.slurm-$SLURM_JOB_ID"
(umask 077 && mkdir -p "$state" && head -c 32 /dev/urandom | base64 | tr -d '\n=+/' > "$state/auth_token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/auth_token"

nodes=()
while read -r node; do nodes+=("$node"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
address="$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')"
port=$((20000 + SLURM_JOB_ID % 10000))
gpus="${SLURM_GPUS_ON_NODE:-0}"

pids=()
finish() {
  trap - EXIT TERM INT
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait || true
  rm -rf "$state"
}
trap finish EXIT
trap 'kill -INT "${driver:-0}" 2>/dev/null; wait "${driver:-}" || true; exit 130' TERM INT

start() { # node, arguments of ray start
  srun --nodes=1 --ntasks=1 --overlap -w "$1" "$bin/ray" start --block --disable-usage-stats "${@:2}" &
  pids+=($!)
}
start "$head" --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --resources='{"trial_slot": 1000}'
until RAY_ADDRESS="$address:$port" "$bin/ray" status >/dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
  start "$node" --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus"
done

RAY_ADDRESS="$address:$port" "$bin/python" launch/tune.py --address auto --gpus-per-worker 1 "$@" &
driver=$!
wait "$driver"
