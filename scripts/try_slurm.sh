#!/usr/bin/env bash
# scripts/slurm_array.sh on a real Slurm of one node, which this sets up and takes down: needs root on Debian or Ubuntu,
# and installs slurm-wlm there. One task is killed; the array ends without it, and its part, sent again, ends the sweep.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
command -v sbatch >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm >/dev/null
place=$(mktemp -d)
node=$(hostname -s)
export SLURM_CONF=$place/slurm.conf
daemons=()
finish() {
    scancel --user="$(id -un)" 2>/dev/null || true
    sleep 1
    kill "${daemons[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$place"
}
trap finish EXIT

mkdir "$place/state" "$place/spool"
cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$node
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge.socket
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
NodeName=$node CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
dd if=/dev/urandom of="$place/munge.key" bs=32 count=1 status=none
chmod 400 "$place/munge.key"
chmod 755 "$place"
munged --foreground --force --key-file="$place/munge.key" --socket="$place/munge.socket" \
    --pid-file="$place/munge.pid" --seed-file="$place/munge.seed" --log-file="$place/munge.log" 2>/dev/null &
daemons+=($!)
slurmctld -D >"$place/slurmctld.log" 2>&1 &
daemons+=($!)
slurmd -D >"$place/slurmd.log" 2>&1 &
daemons+=($!)
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
    sleep 0.5
done
[ "$(sinfo --noheader --format=%T)" = idle ] || {
    tail -n 5 "$place"/*.log
    echo "Slurm does not start" >&2
    exit 1
}

cat >"$place/job.toml" <<'JOB'
model = "sycophancy"
axes = { p_agree = "0:1:3000", p_honest = "0:1:3000" }
JOB
cd "$place"
export EPIJAX="${EPIJAX:-$root/.venv/bin/epijax}" JAX_NUM_CPU_DEVICES=1
store=$place/map.zarr
array() { sbatch --parsable "$@" "$root/scripts/slurm_array.sh" "$place/job.toml" 4 -o "$store"; }
settle() { while [ -n "$(squeue --noheader)" ]; do sleep 0.2; done; }

first=$(array --array=1-4 --hold)
scontrol release "$first"
until [ "$(find "$store/.done" -name '*.json' 2>/dev/null | wc -l)" -gt 0 ]; do sleep 0.02; done
scancel --signal=KILL --full "${first}_2" || true
settle
echo "one task killed: $($EPIJAX status "$store" | sed -n 2p)"
$EPIJAX status "$store" >/dev/null && echo "the task had ended before it was killed"
array --array=2 >/dev/null
settle
$EPIJAX status "$store" --verify
