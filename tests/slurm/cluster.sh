#!/usr/bin/env bash
# A real SLURM on one machine, on loopback, as root, without systemd or cgroups: cluster.sh up|down|fail NODE|back NODE [FOLDER [NODES]]
# Each node stands for a machine of its own: what measures on it takes that node's lock (COLDPREFIX_MACHINE_LOCK, set by the task prolog).
# Every process id is in FOLDER/pids; `down` ends those and no others.
set -euo pipefail
VERB=${1:?up, down, fail or back}; shift
NODE=; case $VERB in fail|back) NODE=${1:?node}; shift ;; esac
ROOT=${1:-${TMPDIR:-/tmp}/coldprefix-slurm}; NODES=${2:-2}
CONF=$ROOT/slurm.conf; PIDS=$ROOT/pids; LINK=/etc/slurm/slurm.conf # a link: the executor's jobs lose SLURM_CONF
PACKAGES="slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins"

pid_of() { awk -v n="$1" '$1 == n { p = $2 } END { print p }' "$PIDS"; }
start() { local name=$1; shift; setsid "$@" >"$ROOT/log/$name.out" 2>&1 </dev/null & echo "$name $!" >>"$PIDS"; }
node() { start "slurmd.$1" slurmd -D -c -N "$1" -f "$CONF"; }
tree() { local c; for c in $(pgrep -P "$1"); do tree "$c"; done; echo "$1"; }
steps() { local p; for p in $(pgrep -f '^slurmstepd: '); do # of one node: they hold its log open
    ls -l "/proc/$p/fd" 2>/dev/null | grep -q "$ROOT/log/slurmd.$1.log" && echo "$p"; done; true; }

case $VERB in
up)
    if ! command -v slurmctld >/dev/null; then
        apt-get update -qq
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $PACKAGES >/dev/null
    fi
    if [ -e "$LINK" ] && [ "$(readlink "$LINK")" != "$CONF" ]; then
        echo "$LINK exists: this machine has a SLURM of its own, or another test's cluster is up" >&2; exit 1
    fi
    HOST=$(hostname -s); CPUS=$(nproc); MEM=$(($(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo) / NODES - 256))
    rm -rf "$ROOT"; mkdir -p "$ROOT/state" "$ROOT/log" "$(dirname "$LINK")"; mkdir -m 0700 "$ROOT/munge"; : >"$PIDS"
    head -c 128 /dev/urandom >"$ROOT/munge/key"; chmod 0400 "$ROOT/munge/key"
    printf '#!/bin/sh\necho "export COLDPREFIX_MACHINE_LOCK=%s/$SLURMD_NODENAME.lock"\n' "$ROOT" >"$ROOT/prolog"; chmod +x "$ROOT/prolog"
    cat >"$CONF" <<CONF
ClusterName=local
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=16817
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOT/munge.sock
StateSaveLocation=$ROOT/state
SlurmctldPidFile=$ROOT/slurmctld.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdSpoolDir=$ROOT/spool.%n
SlurmdPidFile=$ROOT/slurmd.%n.pid
SlurmdLogFile=$ROOT/log/slurmd.%n.log
TaskProlog=$ROOT/prolog
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
MinJobAge=86400
SlurmctldTimeout=5
SlurmdTimeout=10
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=n[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[17001-$((17000 + NODES))] CPUs=$CPUS RealMemory=$MEM State=UNKNOWN
PartitionName=measure Nodes=n[1-$NODES] OverSubscribe=EXCLUSIVE MaxTime=INFINITE Default=YES State=UP
PartitionName=work Nodes=n[1-$NODES] OverSubscribe=NO MaxTime=INFINITE State=UP
CONF
    ln -sfn "$CONF" "$LINK"
    start munged munged --foreground --force --socket="$ROOT/munge.sock" --key-file="$ROOT/munge/key" --pid-file="$ROOT/munge/pid" \
        --log-file="$ROOT/munge/log" --seed-file="$ROOT/munge/seed"
    for _ in $(seq 100); do [ -S "$ROOT/munge.sock" ] && break; sleep 0.05; done
    start slurmctld slurmctld -D -c -f "$CONF"
    for i in $(seq "$NODES"); do node "n$i"; done
    for _ in $(seq 300); do
        [ "$(sinfo -h -p work -t idle -o %D 2>/dev/null | head -1)" = "$NODES" ] && { echo "$NODES nodes idle"; exit 0; }; sleep 0.1
    done
    tail -n 5 "$ROOT"/log/*.out >&2; exit 1 ;;
fail) # as a power cut would
    ALL=$(pid_of "slurmd.$NODE"; for p in $(steps "$NODE"); do tree "$p"; done)
    # shellcheck disable=SC2086
    kill -9 $ALL 2>/dev/null || true; echo "ended $(echo "$ALL" | wc -l) processes of $NODE" ;;
back) node "$NODE" ;;
down)
    [ -e "$PIDS" ] || exit 0
    scancel --user=root 2>/dev/null || true; sleep 1
    for n in $(awk '{print $1}' "$PIDS" | sort -u | tac); do
        P=$(pid_of "$n"); case $(cat "/proc/$P/comm" 2>/dev/null) in slurm*|munged) kill "$P" ;; esac
    done
    if [ "$(readlink "$LINK")" = "$CONF" ]; then rm -f "$LINK"; fi ;;
esac
