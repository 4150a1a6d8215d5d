#!/usr/bin/env bash
# A sweep as a Slurm array, each task a part of it:
#
#   sbatch --array=1-16 scripts/slurm_array.sh job.toml 16 -o /shared/map.zarr
#
# The number of parts is said again, because a task that failed is run again alone (--array=3), and Slurm then counts
# one. Sent twice, the same command does what is left. On GPUs, one a task: sbatch --gpus-per-task=1 …, with
# epijax[cuda] installed. EPIJAX names the command, if it is not on the PATH.
#SBATCH --job-name=epijax
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log
set -eu
if [ $# -lt 2 ] || [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
    echo "usage: sbatch --array=1-N $0 JOB N [options of epijax sweep]" >&2
    exit 2
fi
job=$1 parts=$2
shift 2
exec ${EPIJAX:-epijax} sweep "$job" --part "$SLURM_ARRAY_TASK_ID/$parts" "$@"
