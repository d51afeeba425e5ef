#!/bin/sh
# Installs coldprefix into a Debian 12: Dockerfile and coldprefix.def both run it, as root, in an image that holds the checkout.
#
#     sh container/install.sh
#
# COLDPREFIX_CACHE    where environments and builds go; /opt/coldprefix-cache if not set
# COLDPREFIX_ENGINES  which engines to install; "llamacpp vllm" if not set, nothing but the driver if empty
#
# All that needs the network happens here. Afterwards everything belongs to the user coldprefix, who runs it.
set -eu

checkout=$(cd "$(dirname "$0")/.." && pwd)
: "${COLDPREFIX_CACHE:=/opt/coldprefix-cache}"
: "${COLDPREFIX_ENGINES=llamacpp vllm}"
export COLDPREFIX_CACHE

if [ "$(id -u)" != 0 ]; then
    echo "container/install.sh: run as root, in a container; on your own machine it is: make figures" >&2
    exit 1
fi
if ! grep -q '^VERSION_ID="12"' /etc/os-release; then
    echo "container/install.sh: this is not Debian 12, whose Python 3.11 the locks are for" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# g++ stays: vLLM compiles parts of a model when it starts. libnuma1: vLLM's build for CPUs. git: says which commit measured.
apt-get install -y -qq --no-install-recommends ca-certificates g++ git libnuma1 make python3 python3-venv >/dev/null
rm -rf /var/lib/apt/lists/*

id coldprefix >/dev/null 2>&1 || useradd --create-home --uid 1000 coldprefix
mkdir -p "$COLDPREFIX_CACHE"
chown -R coldprefix: "$checkout" "$COLDPREFIX_CACHE"

set_up() {
    python=$1
    shift
    setpriv --reuid coldprefix --regid coldprefix --init-groups env HOME=/home/coldprefix \
        "$python" "$checkout/workflow/scripts/set_up.py" "$@"
}

set_up python3 driver
driver=$checkout/.venv/bin/python
for engine in $COLDPREFIX_ENGINES; do
    case $engine in
        llamacpp) set_up "$driver" llamacpp --engine llamacpp --accelerator cpu ;;
        vllm) set_up "$driver" vllm-cpu ;;
        *)
            echo "container/install.sh: COLDPREFIX_ENGINES names $engine; there are llamacpp and vllm" >&2
            exit 1
            ;;
    esac
done
# Makes GGUF from safetensors, for llama.cpp.
case " $COLDPREFIX_ENGINES " in *" llamacpp "*) set_up "$driver" convert ;; esac
echo "coldprefix: installed in $checkout and $COLDPREFIX_CACHE"
