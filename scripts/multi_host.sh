#!/usr/bin/env bash
# A sweep by all processes of a launcher, each a part of it, on as many hosts as it has; the store is on a file system
# that all of them see:
#
#   srun -n 16 scripts/multi_host.sh job.toml -o /shared/map.zarr          # Slurm
#   mpirun -n 16 scripts/multi_host.sh job.toml -o /shared/map.zarr        # Open MPI
#   INDEX=3 COUNT=16 scripts/multi_host.sh job.toml -o /shared/map.zarr    # anything: INDEX from 0 to COUNT - 1
#
# Processes need not know of each other, and none waits for another: one that dies leaves its part to the next run.
set -eu
index=${INDEX:-${SLURM_PROCID:-${OMPI_COMM_WORLD_RANK:-${JOB_COMPLETION_INDEX:-${TPU_WORKER_ID:-}}}}}
count=${COUNT:-${SLURM_NTASKS:-${OMPI_COMM_WORLD_SIZE:-}}}
if [ $# -lt 1 ] || [ -z "$index" ] || [ -z "$count" ]; then
    echo "usage: INDEX=i COUNT=n $0 JOB [options of epijax sweep], or by srun or mpirun, which say both" >&2
    exit 2
fi
exec ${EPIJAX:-epijax} sweep "$1" --part "$((index + 1))/$count" "${@:2}"
