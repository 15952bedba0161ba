#!/usr/bin/env bash
# A study or a run on a Slurm cluster: Ray on all nodes of the job, its driver on the first one.
#
# Cost: what your site charges for the nodes and hours below.
#
#   up and submit  sbatch launch/cluster/slurm.sh --dataset awa --data-dir /shared/awa --name awa1
#   a single run   sbatch launch/cluster/slurm.sh train --dataset awa --data-dir /shared/awa --name big --workers 8
#   watch          tail -f bbam-ray-<job>.out; bbam-ray watch results/awa/awa1
#   down           scancel --batch --signal=TERM <job>; resume with the same command, its --name, and --resume
#
# A plain `scancel <job>` ends Ray and the study at the same moment; no completed trial is lost. Before its time limit, or with
# the line above, the script gets SIGTERM: a run and every running trial of a study then write a checkpoint in the middle of
# their epochs. A job that Slurm requeues resumes by itself. Without --name a study is called slurm-<job>.
#
# Change: nodes, GPUs and time; the modules that your site needs. Run it from the repository, after `make demo` or
# `make test` has created .venv in a folder that all nodes share. Nodes without GPUs: sbatch --gpus-per-node=0 ...
#SBATCH --job-name=bbam-ray
#SBATCH --output=bbam-ray-%j.out
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

bin="${SLURM_SUBMIT_DIR:?start it with sbatch}/.venv/bin"
cd "$SLURM_SUBMIT_DIR"
# A token for this job, readable only by its owner.
state="$SLURM_SUBMIT_DIR/.slurm-$SLURM_JOB_ID"
(umask 077 && mkdir -p "$state" && head -c 32 /dev/urandom | base64 | tr -d '\n=+/' > "$state/auth_token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/auth_token"
# Ray would drain its nodes for 30 s, after which Slurm kills everything; a study has nothing to drain.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

driver="" steps=()
finish() { # the token first: Ray may take as long to end as Slurm waits before it kills everything
  trap '' TERM INT
  rm -rf "$state"
  for step in "${steps[@]}"; do kill -TERM "$step" 2>/dev/null || true; done
  wait || true
}
interrupt() { # INT would do nothing: bash starts background processes with INT ignored
  trap '' TERM INT
  if [[ -n "$driver" ]]; then
    kill -TERM "$driver" 2>/dev/null || true
    wait "$driver" || true
  fi
  exit 130
}
trap finish EXIT
trap interrupt TERM INT

# The address of the first node as the others resolve it: in its own /etc/hosts it may be a loopback address.
nodes=()
while read -r node; do nodes+=("$node"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
name="$(sinfo --noheader --nodes="$head" --format=%o | awk 'NR == 1 {print $1}')"
address="$(srun --nodes=1 --ntasks=1 -w "${nodes[-1]}" getent ahostsv4 "$name" | awk 'NR == 1 {print $1}')"
# Ports and folders of this job's own: nodes may be shared with other jobs and users.
port=$((20000 + 2 * (SLURM_JOB_ID % 5000)))
gpus="${SLURM_GPUS_ON_NODE:-0}"
export RAY_ADDRESS="$address:$port"

start() { # node, arguments of ray start; srun does not take over the CPUs per task of the job
  srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --overlap -w "$1" \
    "$bin/ray" start --block --log-color=false --disable-usage-stats --temp-dir="/tmp/ray-$SLURM_JOB_ID" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" "${@:2}" &
  steps+=($!)
}
await() { # command that succeeds when Ray is ready
  until "$@" >/dev/null 2>&1; do
    for step in "${steps[@]}"; do
      kill -0 "$step" 2>/dev/null || { echo "error: Ray has ended on a node; see the lines above" >&2; exit 1; }
    done
    sleep 2
  done
}
start "$head" --head --node-ip-address="$address" --port="$port" --ray-client-server-port=$((port + 1)) \
  --dashboard-host=127.0.0.1 --resources='{"trial_slot": 1000}'
await "$bin/ray" status
for node in "${nodes[@]:1}"; do
  start "$node" --address="$address:$port"
done
# All nodes have joined before the study counts how many trials fit.
await "$bin/python" -c '
import sys, ray
ray.init(logging_level="ERROR", log_to_driver=False)
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]))' "${#nodes[@]}"

command=tune
if [[ "${1:-}" == tune || "${1:-}" == train ]]; then
  command=$1
  shift
fi
run_driver() {
  "$bin/python" "launch/$command.py" --address auto --name "slurm-$SLURM_JOB_ID" "$@" &
  driver=$!
  wait "$driver"
}
# A requeued job resumes its study; exit code 2: there is none yet.
if ((${SLURM_RESTART_COUNT:-0} > 0)); then
  code=0
  run_driver "$@" --resume || code=$?
  ((code == 2)) || exit "$code"
fi
run_driver "$@"
