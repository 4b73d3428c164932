#!/bin/sh
# Installs a Far Mesh node for the user who runs it: no root, everything below ~/.far, and two links in ~/.local/bin.
#
#   sh deploy/install.sh                       from this checkout
#   curl -fsSL ADDRESS | sh -s -- --from …     from anywhere; see --help
#
# ~/.far/venvs/VERSION   an environment for each version          ~/.far/python   a Python, where the system has none
# ~/.far/venv            a link to the one that counts            ~/.far/install.log
#
# All of it is in functions, and the last line calls main: of a download that was cut off nothing is run.

set -u

FAR_PYTHON_RELEASE=20261110
FAR_PYTHON_VERSION=3.12.16
FAR_PYTHON_HOME=https://github.com/astral-sh/python-build-standalone/releases/download

usage() {
  cat <<'END'
Usage: install.sh [--from SOURCE] [options]
       install.sh --uninstall [--purge]

  --from SOURCE         what to install: a checkout, a wheel or an sdist (a path, or an address together with
                        --sha256), or git+ADDRESS[@BRANCH, TAG or COMMIT].
                        Default: the checkout in which this script lies.
  --sha256 HEX          what the wheel or sdist must have as its SHA-256
  --torch BUILD         auto (default), cpu, cu126, cu130 or rocm7.2
  --torch-index WHERE   index or folder with builds of torch, instead of the known ones; {build} in it is replaced
                        (FAR_TORCH_INDEX)
  --python PATH         the Python to use, 3.11 to 3.13; default: the first that fits, or one of our own
  --python-mirror WHERE address or folder from which our own Python is taken, if one is needed
                        (FAR_PYTHON_MIRROR)
  --dry-run             say what would be done
  --uninstall           remove what this script has installed. Settings, identities and models stay
  --purge               with --uninstall: remove them too. The identity is what earns: there is no way back
  --help

Indexes, mirrors and proxies of pip are pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, HTTPS_PROXY …).
END
}

# ---- telling ---------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*"; }

warn() { printf 'note: %s\n' "$*" >&2; }

fail() { # SENTENCE [WHAT TO DO] …
  printf 'error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

misused() {
  printf 'error: %s\n       install.sh --help says what there is.\n' "$1" >&2
  exit 2
}

step() {
  STEP=$((STEP + 1))
  printf '[%s/%s] %s\n' "$STEP" "$STEPS" "$*"
}

# Runs a command whose output goes into the log; on a terminal its last line is shown meanwhile.
logged() {
  printf '\n$ %s\n' "$*" >>"$LOG"
  "$@" >>"$LOG" 2>&1 &
  CHILD=$!
  printf '%s\n' "$CHILD" >"$WORK/child"
  if [ -t 1 ]; then
    began=$(date +%s)
    while kill -0 "$CHILD" 2>/dev/null; do
      printf '\r\033[K      %s s  %s' "$(($(date +%s) - began))" "$(tail -n 1 "$LOG" | cut -c 1-65)"
      sleep 1
    done
    printf '\r\033[K'
  fi
  wait "$CHILD"
  LOGGED=$?
  CHILD=
  return "$LOGGED"
}

log_says() { tail -n 60 "$LOG" | grep -q -i -E "$1"; }

# Why a step failed, and what to do, by what it wrote into the log.
explain() { # WHAT FAILED
  if log_says 'no space left on device|disk quota exceeded'; then
    fail "$1: the disk is full. $(free_mib "$FAR") MiB are free where $FAR is." \
      "About $NEEDED MiB are needed. Free some and run the same command again."
  elif log_says 'do not match the hashes|hash mismatch|has no hash|all requirements to have their versions pinned'; then
    fail "$1: a package is not the one that this version was made with, so it was refused." \
      "If you use a mirror or a proxy, it hands out something else; without one, try again later." "See $LOG"
  elif log_says 'name resolution|name or service not known|could not resolve|nodename nor servname|dns error|network is unreachable|connection refused|failed to connect|couldn.t connect|no route to host|newconnectionerror|proxyerror|timed out|error sending request|unable to access'; then
    fail "$1: the network cannot be reached." \
      "Check the connection, or the proxy (HTTPS_PROXY), or pip's index (PIP_INDEX_URL), and run the same command again." \
      "See $LOG"
  elif log_says 'certificate_verify_failed|sslerror|certificate'; then
    fail "$1: a certificate is not trusted." \
      "Is the clock right ($(date))? Behind a proxy that looks inside, name its certificate in PIP_CERT. See $LOG"
  elif log_says 'no matching distribution|could not find a version|no solution found'; then
    fail "$1: there is no build for this machine ($SYSTEM, Python $PYTHON_VERSION)." \
      "Another Python may help (--python), or another build of torch (--torch cpu). See $LOG"
  elif log_says 'failed building wheel|failed to build|command .*(gcc|cc|g\+\+).* (failed|not found)'; then
    fail "$1: a package has no ready build for this machine, and compiling it failed." \
      "Install a compiler and Python's headers (build-essential, python3-dev), or try another Python (--python). See $LOG"
  fi
  tail -n 5 "$LOG" >&2
  fail "$1." "Run the same command again; if it stays, all that was said is in $LOG"
}

# ---- small tools -----------------------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

sha256() { # FILE
  if has sha256sum; then
    sha256sum "$1" | cut -d ' ' -f 1
  elif has shasum; then
    shasum -a 256 "$1" | cut -d ' ' -f 1
  elif has openssl; then
    openssl dgst -sha256 "$1" | sed 's/.* //'
  else
    fail "there is no program to verify what is downloaded." "Install coreutils (sha256sum) or openssl."
  fi
}

verify() { # FILE SHA256 WHAT
  found=$(sha256 "$1") || exit 1
  if [ "$found" != "$(printf '%s' "$2" | tr 'A-F' 'a-f')" ]; then
    rm -f "$1"
    fail "$3 is not what it should be, and was refused." "SHA-256 is    $found" "and should be $2"
  fi
}

# A download that can go on where it stopped: what is there of FILE already is kept.
fetch() { # ADDRESS FILE WHAT
  case $1 in
    http://* | https://*)
      if has curl; then
        logged curl --fail --location --silent --show-error --retry 3 --connect-timeout 20 --continue-at - \
          --output "$2" "$1" || explain "$3 could not be downloaded from $1"
      elif has wget; then
        logged wget --continue --tries=3 --timeout=20 --output-document="$2" "$1" ||
          explain "$3 could not be downloaded from $1"
      else
        fail "neither curl nor wget is here to download $3." "Install one of them."
      fi
      ;;
    *)
      [ -f "${1#file://}" ] || fail "$3 is not there: ${1#file://}"
      logged cp "${1#file://}" "$2" || explain "$3 could not be copied"
      ;;
  esac
}

existing() { # PATH: the nearest folder above it that exists
  place=$1
  while [ ! -d "$place" ]; do place=$(dirname "$place"); done
  printf '%s\n' "$place"
}

free_mib() { # PATH
  df -Pk "$(existing "$1")" | awk 'NR == 2 { print int($4 / 1024) }'
}

owner_of() { # PATH: the user's number
  # shellcheck disable=SC2012 # stat is not the same everywhere
  ls -ldn "$1" | awk '{ print $3 }'
}

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

pid_in() { cat "$1" 2>/dev/null || :; }

# ---- looking at the machine ------------------------------------------------------------------------------------------

look_at_system() {
  SYSTEM="$(uname -s) $(uname -m)"
  case $SYSTEM in
    'Linux x86_64') TRIPLE=x86_64-unknown-linux-gnu ;;
    'Linux aarch64' | 'Linux arm64') TRIPLE=aarch64-unknown-linux-gnu ;;
    'Darwin arm64') TRIPLE=aarch64-apple-darwin ;;
    *)
      fail "there are no builds of torch for $SYSTEM." \
        "A node runs on 64-bit Linux (x86_64, aarch64) or on a Mac with Apple silicon; on Windows inside WSL."
      ;;
  esac
  if [ "${SYSTEM%% *}" = Linux ] && (ldd --version 2>&1 || :) | grep -q -i musl; then
    fail "this system has musl for a C library, and torch is built for glibc only." \
      "Use a distribution with glibc (Debian, Ubuntu, Fedora …), or a container of one."
  fi
}

# Of Python: new enough, not too new for the builds of what is needed, 64 bits, and whole (Debian keeps venv apart).
fits() { # PYTHON
  "$1" -I -c 'import sys, ssl, sqlite3, ctypes, venv, ensurepip
sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and sys.maxsize > 2**32))' >/dev/null 2>&1
}

find_python() {
  PYTHON=
  if [ -n "$WANTED_PYTHON" ]; then
    fits "$WANTED_PYTHON" || fail "$WANTED_PYTHON is not a Python 3.11, 3.12 or 3.13 with venv, ssl and sqlite3." \
      "On Debian and Ubuntu: sudo apt install python3-venv. Without --python one that fits is looked for, or brought."
    PYTHON=$WANTED_PYTHON
  else
    for name in python3 python3.13 python3.12 python3.11 "$OWN_PYTHON/bin/python3"; do
      if fits "$name"; then
        PYTHON=$(command -v "$name")
        break
      fi
    done
  fi
  PYTHON_VERSION=$FAR_PYTHON_VERSION
  [ -z "$PYTHON" ] || PYTHON_VERSION=$("$PYTHON" -I -c 'import platform; print(platform.python_version())')
}

own_python_sha256() {
  case $TRIPLE in
    x86_64-unknown-linux-gnu) say 6a9e62dad033790aef722dbd370e0ce76ce17b73627ba3ae679f537049350b39 ;;
    aarch64-unknown-linux-gnu) say b6a41defec4975d94b4ff1950236e7383e5c02ba40ea48c9ec33c66087a35aab ;;
    aarch64-apple-darwin) say 2f11b8aa3726bdbd87dd9eb76568412faddf4f47e26913fa45d6a2e424972acd ;;
  esac
}

bring_python() {
  archive="cpython-$FAR_PYTHON_VERSION+$FAR_PYTHON_RELEASE-$TRIPLE-install_only_stripped.tar.gz"
  kept="$FAR/python/$archive.part"
  mkdir -p "$FAR/python"
  address="${PYTHON_MIRROR:-$FAR_PYTHON_HOME/$FAR_PYTHON_RELEASE}/$archive"
  case $address in http*) address=$(printf '%s' "$address" | sed 's/+/%2B/') ;; esac
  if [ ! -f "$kept" ] || [ "$(sha256 "$kept")" != "$(own_python_sha256)" ]; then
    fetch "$address" "$kept" Python
  fi
  verify "$kept" "$(own_python_sha256)" Python
  rm -rf "$WORK/python" "$OWN_PYTHON"
  mkdir "$WORK/python"
  logged tar -xzf "$kept" -C "$WORK/python" || explain "Python could not be unpacked"
  mv "$WORK/python/python" "$OWN_PYTHON"
  rm -f "$kept"
  PYTHON="$OWN_PYTHON/bin/python3"
  fits "$PYTHON" || fail "the Python that was brought does not run here." "Install Python 3.11, 3.12 or 3.13 and use --python."
}

patiently() { # a driver in trouble may never answer
  if has timeout; then timeout 20 "$@"; else "$@"; fi
}

# CUDA builds of torch 2.13: 13.0 for Turing (7.5) and newer with a driver from 580 on; 12.6 for Maxwell (5.0) to Hopper
# (9.0) with one from 525 on. Prints a build, or a sentence that begins with "none".
cuda_build() { # DRIVER, then the compute capability of each GPU
  driver=${1%%.*}
  shift
  case $driver in '' | *[!0-9]*) driver=0 ;; esac
  old=0 modern=0 newest=0
  for capability in "$@"; do
    major=${capability%%.*} minor=${capability#*.}
    case $major$minor in *[!0-9]* | '') continue ;; esac
    number=$((major * 10 + minor))
    if [ "$number" -ge 100 ]; then
      newest=1
    elif [ "$number" -ge 75 ]; then
      modern=1
    elif [ "$number" -ge 50 ]; then
      old=1
    fi
  done
  if [ "$((old + modern + newest))" = 0 ]; then
    say "none: the GPU is older than all for which torch is built (Maxwell, compute capability 5.0)"
  elif [ "$driver" -ge 580 ] && [ "$((modern + newest))" -gt 0 ]; then
    say cu130
  elif [ "$((old + modern))" = 0 ]; then
    say "none: the driver $driver is too old for a GPU this new; install driver 580 or newer and run this again"
  elif [ "$driver" -ge 525 ]; then
    say cu126
  else
    say "none: the driver $driver is too old; install driver 580 or newer and run this again"
  fi
}

has_card() { # VENDOR: a display device of that vendor on the PCI bus
  for device in "${PCI_DEVICES:-/sys/bus/pci/devices}"/*; do
    case $(pid_in "$device/vendor") in "$1") ;; *) continue ;; esac
    case $(pid_in "$device/class") in 0x03*) return 0 ;; esac
  done
  return 1
}

# Sets BUILD and DEVICE (what to call it), and warns where a GPU is there and cannot be used.
look_at_gpus() {
  BUILD=cpu DEVICE="no GPU"
  [ "${SYSTEM%% *}" = Linux ] || return 0
  smi=$(command -v nvidia-smi || command -v /usr/lib/wsl/lib/nvidia-smi || :)
  if [ -n "$smi" ]; then
    if found=$(patiently "$smi" --query-gpu=driver_version,compute_cap,name --format=csv,noheader 2>&1) && [ -n "$found" ]; then
      driver_version=$(printf '%s\n' "$found" | sed -n '1s/,.*//p')
      capabilities=$(printf '%s\n' "$found" | cut -d , -f 2 | tr -d ' ' | tr '\n' ' ')
      DEVICE="$(printf '%s\n' "$found" | cut -d , -f 3- | sed 's/^ *//' | paste -s -d ';' -), driver $driver_version"
      # shellcheck disable=SC2086 # a capability is a word
      answer=$(cuda_build "$driver_version" $capabilities)
      case $answer in
        none*) warn "$DEVICE: ${answer#none: }. This installs for the CPU." ;;
        *)
          BUILD=$answer
          return 0
          ;;
      esac
    else
      warn "nvidia-smi does not answer ($(printf '%s\n' "$found" | head -n 1)). Repair the NVIDIA driver and run this again; this installs for the CPU."
    fi
    return 0
  fi
  info=$(command -v rocminfo || command -v /opt/rocm/bin/rocminfo || :)
  if [ -n "$info" ]; then
    if found=$(patiently "$info" 2>&1); then
      chips=$(printf '%s\n' "$found" | sed -n 's/^ *Name: *\(gfx[0-9a-f]*\).*/\1/p' | sort -u | paste -s -d ' ' -)
      if [ -n "$chips" ] && [ "$TRIPLE" = x86_64-unknown-linux-gnu ]; then
        BUILD=rocm7.2 DEVICE="AMD $chips"
      fi
    else
      warn "rocminfo does not answer ($(printf '%s\n' "$found" | tail -n 1)). Are you in the groups render and video? This installs for the CPU."
    fi
    return 0
  fi
  if has_card 0x10de; then
    warn "an NVIDIA card is here, but no nvidia-smi. Install NVIDIA's driver and run this again; this installs for the CPU."
  elif has_card 0x1002; then
    warn "an AMD card is here, but no rocminfo. If it is one that ROCm supports, install ROCm and run this again; this installs for the CPU."
  fi
}

choose_build() {
  case $WANTED_BUILD in
    auto) look_at_gpus ;;
    cpu | cu126 | cu130 | rocm7.2) BUILD=$WANTED_BUILD DEVICE="as asked for" ;;
    *) misused "--torch $WANTED_BUILD is none of auto, cpu, cu126, cu130, rocm7.2." ;;
  esac
  if [ "${SYSTEM%% *}" = Darwin ] && [ "$BUILD" != cpu ]; then
    misused "--torch $BUILD is not for a Mac; leave it out."
  fi
  case $BUILD in # MiB on the disk, with what pip keeps of its downloads
    cpu) NEEDED=4000 ;;
    cu*) NEEDED=12000 ;;
    *) NEEDED=25000 ;;
  esac
}

# ---- what is installed -----------------------------------------------------------------------------------------------

version_in() { sed -n 's/^version = "\([^"]*\)".*/\1/p' "$1/pyproject.toml" | head -n 1; }

# Sets KIND (tree, wheel, sdist, git) and, where it can be known before anything is fetched, VERSION.
look_at_source() {
  VERSION=
  if [ -z "$SOURCE" ]; then
    here=$(dirname "$0")/..
    if [ -f "$0" ] && [ -f "$here/pyproject.toml" ] && [ -d "$here/far_node" ]; then
      SOURCE=$(cd "$here" && pwd)
    else
      misused "--from is missing: what should be installed?"
    fi
  fi
  case $SOURCE in
    git+*)
      KIND=git
      has git || fail "git is not here, and the source is a git repository." "Install git, or take a wheel (--from)."
      [ -z "$SHA256" ] || misused "--sha256 is for a wheel or an sdist; a git repository is pinned with @COMMIT."
      ;;
    *.whl) KIND=wheel ;;
    *.tar.gz) KIND=sdist ;;
    *) KIND=tree ;;
  esac
  case $SOURCE in
    http://* | https://*)
      [ "$KIND" != tree ] || misused "--from $SOURCE is neither a wheel (.whl) nor an sdist (.tar.gz); for a repository write git+$SOURCE."
      [ -n "$SHA256" ] || misused "what is downloaded from $SOURCE must be verified: name its --sha256."
      ;;
    git+*) ;;
    *)
      [ -e "$SOURCE" ] || fail "there is nothing at $SOURCE." "Name a checkout, a wheel or an sdist with --from."
      if [ -d "$SOURCE" ]; then
        SOURCE=$(cd "$SOURCE" && pwd)
      else
        SOURCE=$(cd "$(dirname "$SOURCE")" && pwd)/$(basename "$SOURCE")
      fi
      ;;
  esac
  case $KIND in
    tree)
      [ -z "$SHA256" ] || misused "--sha256 is for a wheel or an sdist, not for a folder."
      [ -f "$SOURCE/pyproject.toml" ] && VERSION=$(version_in "$SOURCE")
      [ -n "$VERSION" ] || fail "$SOURCE is no checkout of Far Mesh."
      ;;
    wheel) VERSION=$(basename "$SOURCE" | cut -d - -f 2) ;;
    sdist) VERSION=$(basename "$SOURCE" .tar.gz | sed 's/.*-//') ;;
  esac
  case $SHA256 in
    '') ;;
    *[!0-9a-fA-F]*) misused "--sha256 $SHA256 is not 64 hexadecimal digits." ;;
    *) [ "${#SHA256}" = 64 ] || misused "--sha256 $SHA256 is not 64 hexadecimal digits." ;;
  esac
}

# A copy of the sources in $WORK/source: building writes into its folder, and a checkout is not ours to write in.
copy_tree() { # FOLDER
  mkdir "$WORK/source"
  logged tar -cf "$WORK/source.tar" -C "$1" --exclude __pycache__ \
    pyproject.toml README.md LICENSE discovery far_node far_mesh deploy || explain "the sources could not be copied"
  logged tar -xf "$WORK/source.tar" -C "$WORK/source" || explain "the sources could not be copied"
}

# Fetches and unpacks: afterwards $WORK/source holds sources, or $WHEEL is a wheel; $CONTENT says what it is.
get_source() {
  WHEEL=
  case $KIND in
    tree) copy_tree "$SOURCE" ;;
    git)
      address=${SOURCE#git+} reference=
      case ${address##*/} in
        *@*)
          reference=${address##*@}
          address=${address%@*}
          ;;
      esac
      logged git clone --quiet --no-checkout "$address" "$WORK/clone" || explain "$address could not be cloned"
      logged git -C "$WORK/clone" -c advice.detachedHead=false checkout --quiet "${reference:-HEAD}" ||
        explain "$reference is not in $address"
      say "      commit $(git -C "$WORK/clone" rev-parse HEAD)"
      copy_tree "$WORK/clone"
      ;;
    *)
      package="$WORK/$(basename "$SOURCE")"
      fetch "$SOURCE" "$package" "the package"
      [ -z "$SHA256" ] || verify "$package" "$SHA256" "the package"
      if [ "$KIND" = wheel ]; then
        WHEEL=$package
      else
        mkdir "$WORK/sdist"
        logged tar -xzf "$package" -C "$WORK/sdist" || explain "$SOURCE is no archive"
        for folder in "$WORK"/sdist/*/; do mv "$folder" "$WORK/source"; done
      fi
      ;;
  esac
  LOCKS="$WORK/source/deploy"
  if [ -n "$WHEEL" ]; then
    mkdir "$WORK/unpacked"
    logged "$PYTHON" -I -m zipfile -e "$WHEEL" "$WORK/unpacked" || explain "$SOURCE is no wheel"
    LOCKS=$(echo "$WORK"/unpacked/far_mesh-*.data/data/share/far-mesh)
    CONTENT=$(sha256 "$WHEEL")
  else
    VERSION=$(version_in "$WORK/source")
    (cd "$WORK/source" && find . -type f | LC_ALL=C sort | while read -r file; do
      printf '%s %s\n' "$file" "$(sha256 "$file")"
    done) >"$WORK/content"
    CONTENT=$(sha256 "$WORK/content")
  fi
  case $VERSION in
    '' | *[!0-9A-Za-z.+!-]*) fail "$SOURCE does not say which version of Far Mesh it is." ;;
  esac
  [ -f "$LOCKS/requirements.lock" ] ||
    fail "$SOURCE has no requirements.lock, so nothing says what its packages must be." "Take another version."
  printf '%s\n' "$CONTENT $BUILD $TORCH_INDEX $PYTHON_VERSION" >"$WORK/fingerprint"
  FINGERPRINT=$(sha256 "$WORK/fingerprint")
}

# An environment is whole when its file says so; that is written last. One that is whole is never touched: a node may be
# running in it. Another build of the same version gets a folder of its own, by its fingerprint.
choose_place() {
  ENVIRONMENT="$FAR/venvs/$VERSION"
  if [ -f "$ENVIRONMENT/installed" ] && ! grep -q -x "fingerprint $FINGERPRINT" "$ENVIRONMENT/installed"; then
    ENVIRONMENT="$FAR/venvs/$VERSION+$(printf '%s' "$FINGERPRINT" | cut -c 1-8)"
  fi
}

is_whole() {
  [ -f "$ENVIRONMENT/installed" ] && grep -q -x "fingerprint $FINGERPRINT" "$ENVIRONMENT/installed"
}

pip_in() {
  logged "$ENVIRONMENT/bin/python" -I -m pip --disable-pip-version-check "$@"
}

make_environment() {
  rm -rf "$ENVIRONMENT"
  mkdir -p "$FAR/venvs"
  logged "$PYTHON" -I -m venv "$ENVIRONMENT" || explain "the environment could not be made"
}

# What there is in sources alone is built with the setuptools of the list, not with one that pip would choose.
install_requirements() {
  awk '/^setuptools==/ { mine = 1; print; next } /^[^ ]/ { mine = 0 } mine' "$LOCKS/requirements.lock" >"$WORK/setuptools.lock"
  if [ -s "$WORK/setuptools.lock" ]; then
    pip_in install --require-hashes --no-deps --requirement "$WORK/setuptools.lock" || explain "setuptools could not be installed"
  fi
  pip_in install --require-hashes --no-deps --no-build-isolation --use-pep517 --requirement "$LOCKS/requirements.lock" ||
    explain "packages could not be installed"
}

torch_version() { sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$LOCKS/torch.lock" | head -n 1; }

# The default index has one build for each system: CUDA 13.0 for Linux. It is in the list of hashes; other builds come from
# the index of torch's makers, whose place uv knows.
install_torch() {
  wanted=torch==$(torch_version)
  sed -n 's/^\([a-zA-Z0-9_.-]*==[^ ]*\).*/\1/p' "$LOCKS/requirements.lock" >"$WORK/constraints.txt"
  if [ -n "$TORCH_INDEX" ]; then
    index=$(printf '%s' "$TORCH_INDEX" | sed "s/{build}/$BUILD/g")
    [ "${SYSTEM%% *}" = Darwin ] || wanted=$wanted+$BUILD
    how=--extra-index-url
    [ ! -d "$index" ] || how=--find-links
    pip_in install --constraint "$WORK/constraints.txt" "$how" "$index" "$wanted" ||
      explain "$wanted could not be installed from $index"
  elif [ "$BUILD" = cu130 ] || [ "${SYSTEM%% *}" = Darwin ]; then
    install_listed_torch
  else
    pip_in install --require-hashes --no-deps --requirement "$LOCKS/tools.lock" || explain "uv could not be installed"
    if ! logged "$ENVIRONMENT/bin/uv" pip install --python "$ENVIRONMENT/bin/python" --torch-backend "$BUILD" \
      --constraint "$WORK/constraints.txt" "$wanted"; then
      [ "$BUILD" = cpu ] || explain "torch for $BUILD could not be installed (--torch-index names another index, --torch cpu does without a GPU)"
      warn "the small build of torch for CPUs cannot be had from here; taking the large one, which runs on a CPU too."
      install_listed_torch
    fi
  fi
}

install_listed_torch() {
  pip_in install --require-hashes --no-deps --requirement "$LOCKS/torch.lock" || explain "torch could not be installed"
}

install_ourselves() {
  if [ -z "$WHEEL" ]; then
    pip_in wheel --no-deps --no-build-isolation --wheel-dir "$WORK/wheel" "$WORK/source" || explain "Far Mesh could not be built"
    WHEEL=$(echo "$WORK"/wheel/far_mesh-*.whl)
  fi
  pip_in install --no-deps --no-index "$WHEEL" || explain "Far Mesh could not be installed"
}

try_environment() {
  pip_in check || explain "the packages do not fit together"
  logged "$ENVIRONMENT/bin/far-node" --version || explain "far-node does not start"
  logged "$ENVIRONMENT/bin/python" -I -c 'import torch
print("torch", torch.__version__, "sees a GPU:", torch.cuda.is_available())' || explain "torch does not start"
  if [ "$BUILD" != cpu ] && ! log_says 'sees a GPU: True'; then
    warn "torch is installed for $BUILD but sees no GPU. far-node doctor says more; a driver just installed needs a restart."
  fi
}

# The link is replaced in one go, so that there is no moment without one.
point() { # LINK TARGET
  "$PYTHON" -I -c 'import os, sys
link, target = sys.argv[1:]
new = f"{link}.{os.getpid()}"
os.symlink(target, new)
os.replace(new, link)' "$1" "$2" || fail "the link $1 could not be made." "Is there a folder of that name? Move it away and run this again."
}

link_commands() {
  point "$FAR/venv" "venvs/$(basename "$ENVIRONMENT")"
  mkdir -p "$BIN"
  for command in far-node far-mesh; do
    if [ -e "$BIN/$command" ] && [ ! -L "$BIN/$command" ]; then
      warn "$BIN/$command is not ours and stays; ours is $FAR/venv/bin/$command."
    else
      point "$BIN/$command" "$FAR/venv/bin/$command"
    fi
  done
}

in_use() { # ENVIRONMENT: something that runs was started from it
  grep -q -s -F "$1/" /proc/[0-9]*/cmdline
}

# Two that are older stay, to go back to, and each that a node still runs in.
drop_old() {
  # shellcheck disable=SC2010,SC2012 # names of versions have no spaces, and the order of time is what is wanted
  ls -1t "$FAR/venvs" | grep -v -x -F "$(basename "$ENVIRONMENT")" | tail -n +3 | while read -r old; do
    in_use "$FAR/venvs/$old" || rm -rf "$FAR/venvs/${old:?}"
  done
}

# ---- one at a time, and tidy -----------------------------------------------------------------------------------------

take_turn() {
  mkdir -p "$FAR" || fail "$FAR cannot be made." "Is the disk full, or $HOME somebody else's?"
  if ! mkdir "$WORK" 2>/dev/null; then
    for file in "$WORK/owner" "$WORK/child"; do
      if alive "$(pid_in "$file")"; then
        fail "another installer is at work (process $(pid_in "$file"))." "Wait until it has finished, or end it, and run this again."
      fi
    done
    rm -rf "$WORK"
    mkdir "$WORK" || fail "$WORK cannot be made." "Is the disk full?"
  fi
  echo $$ >"$WORK/owner"
  mkdir "$WORK/tmp"
  TMPDIR="$WORK/tmp"
  export TMPDIR # pip unpacks gigabytes, and /tmp is often small
  trap 'rm -rf "$WORK"' EXIT
  trap 'stopped 130' INT
  trap 'stopped 143' TERM HUP
}

# far-node holds a lock while it updates itself, and asks for our owner once it has it; so whoever comes second gives way.
refuse_during_update() { # PYTHON
  [ -f "$FAR/venvs/.lock" ] || return 0
  "$1" -I -c 'import fcntl, sys
fcntl.flock(open(sys.argv[1], "r+"), fcntl.LOCK_EX | fcntl.LOCK_NB)' "$FAR/venvs/.lock" 2>/dev/null ||
    fail "far-node is updating itself." "Wait until it has finished, and run this again."
}

stopped() { # EXIT CODE
  trap '' INT TERM HUP
  if [ -n "$CHILD" ]; then
    kill "$CHILD" 2>/dev/null || :
    wait "$CHILD" 2>/dev/null || :
  fi
  printf '\nstopped. The same command goes on from what pip has kept of its downloads.\n' >&2
  exit "$1"
}

# ---- the whole -------------------------------------------------------------------------------------------------------

show_plan() {
  say "Far Mesh ${VERSION:-(its version is known when it is here)} from $SOURCE"
  say "  into    $FAR/venvs/${VERSION:-VERSION}, as $BIN/far-node"
  if [ -n "$PYTHON" ]; then
    say "  Python  $PYTHON_VERSION ($PYTHON)"
  else
    say "  Python  $PYTHON_VERSION, which is brought: none of 3.11 to 3.13 with venv is here"
  fi
  say "  torch   $BUILD ($DEVICE)${TORCH_INDEX:+ from $TORCH_INDEX}"
  say "  disk    about $NEEDED MiB; $(free_mib "$FAR") MiB are free"
}

install() {
  look_at_system
  look_at_source
  find_python
  choose_build
  show_plan
  [ "$DRY_RUN" = no ] || return 0
  [ "$(free_mib "$FAR")" -ge "$NEEDED" ] ||
    fail "there is not enough room: $(free_mib "$FAR") MiB are free where $FAR is, about $NEEDED are needed." \
      "Free some and run this again."
  take_turn
  printf '%s\n' "$(date) install.sh: $SOURCE, $BUILD" >"$LOG"
  STEP=0 STEPS=6
  [ -n "$PYTHON" ] || STEPS=7
  if [ -z "$PYTHON" ]; then
    step "Python $FAR_PYTHON_VERSION"
    bring_python
  fi
  refuse_during_update "$PYTHON"
  step "the sources"
  get_source
  choose_place
  if is_whole; then
    say "      this is installed already"
  else
    step "an environment in $ENVIRONMENT"
    make_environment
    step "$(grep -c '==' "$LOCKS/requirements.lock") packages, each by its hash; some minutes the first time"
    install_requirements
    step "torch for $BUILD: the largest part"
    install_torch
    step "Far Mesh $VERSION"
    install_ourselves
    step "a trial"
    try_environment
    printf 'version %s\nfingerprint %s\ntorch %s\n' "$VERSION" "$FINGERPRINT" "$BUILD" >"$WORK/installed"
    mv "$WORK/installed" "$ENVIRONMENT/installed"
  fi
  link_commands
  drop_old
  next_steps
}

next_steps() {
  say ""
  say "Far Mesh $VERSION is installed."
  case ":$PATH:" in
    *":$BIN:"*) ;;
    *)
      say "$BIN is not in your PATH. Now, and in ~/.profile for the next time:"
      say "  export PATH=\"$BIN:\$PATH\""
      ;;
  esac
  if [ -f "$FAR/config.toml" ]; then
    say "Your settings are as they were. A node that is running goes on with the version it was started with:"
    say "  far-node stop"
    say "  far-node start"
  else
    say "Next:"
    say "  far-node init      asks for your wallet and for a way into the swarm"
    say "  far-node start"
    say "  far-node doctor    if something does not work"
  fi
}

services() {
  for unit in "$HOME"/.config/systemd/user/far-node*.service "$HOME"/Library/LaunchAgents/*far-node*.plist; do
    [ ! -e "$unit" ] || say "$unit"
  done
}

uninstall() {
  if [ -n "$(services)" ]; then
    fail "a service still starts the node: $(services | paste -s -d ' ' -)" "First: far-node service uninstall"
  fi
  if [ -x "$FAR/venv/bin/far-node" ]; then
    for node in "" "$FAR"/nodes/*/; do
      case $node in *'*'*) continue ;; esac
      name=${node:+--name $(basename "$node")}
      # shellcheck disable=SC2086 # the flag and the name are two words
      if "$FAR/venv/bin/far-node" status --json $name >/dev/null 2>&1; then
        fail "a node is running." "First: far-node stop${name:+ $name}"
      fi
    done
  fi
  take_turn
  [ ! -x "$FAR/venv/bin/python" ] || refuse_during_update "$FAR/venv/bin/python"
  for command in far-node far-mesh; do
    case $(readlink "$BIN/$command" 2>/dev/null) in "$FAR"/venv/*) rm -f "$BIN/$command" ;; esac
  done
  [ ! -L "$FAR/venv" ] || rm -f "$FAR/venv"
  rm -rf "$FAR/venvs" "$FAR/python" "$LOG"
  if [ "$PURGE" = yes ]; then
    rm -rf "$FAR"
    say "Far Mesh is removed, and with it $FAR: settings, identities, models."
  else
    rm -rf "$WORK"
    rmdir "$FAR" 2>/dev/null || :
    say "Far Mesh is removed."
    [ ! -d "$FAR" ] || say "Settings, identities and models stay in $FAR; --uninstall --purge removes them too."
  fi
}

value() { # FLAG, how many words are left, WORD
  [ "$2" -ge 2 ] || misused "$1 needs a value."
  case $3 in '' | --*) misused "$1 needs a value." ;; esac
}

main() {
  ACTION=install SOURCE='' SHA256='' WANTED_BUILD=auto WANTED_PYTHON='' DRY_RUN=no PURGE=no CHILD=''
  TORCH_INDEX=${FAR_TORCH_INDEX:-} PYTHON_MIRROR=${FAR_PYTHON_MIRROR:-}
  while [ $# -gt 0 ]; do
    case $1 in
      --from | --sha256 | --torch | --torch-index | --python | --python-mirror)
        value "$1" $# "${2:-}"
        case $1 in
          --from) SOURCE=$2 ;;
          --sha256) SHA256=$2 ;;
          --torch) WANTED_BUILD=$2 ;;
          --torch-index) TORCH_INDEX=$2 ;;
          --python) WANTED_PYTHON=$2 ;;
          --python-mirror) PYTHON_MIRROR=$2 ;;
        esac
        shift
        ;;
      --dry-run) DRY_RUN=yes ;;
      --uninstall) ACTION=uninstall ;;
      --purge) PURGE=yes ;;
      --help | -h)
        usage
        exit 0
        ;;
      *) misused "$1 is not known." ;;
    esac
    shift
  done
  [ "$PURGE" = no ] || [ "$ACTION" = uninstall ] || misused "--purge goes with --uninstall."
  [ -n "${HOME:-}" ] || fail "HOME is not set, so there is no place to install to." "Set it to your home folder and run this again."
  [ -d "$HOME" ] && [ -w "$HOME" ] || fail "HOME is $HOME, which is no folder that you may write in." "Set it to your home folder and run this again."
  if [ "$(id -u)" = 0 ] && [ "$(owner_of "$HOME")" != 0 ]; then
    fail "this is run as root in the home of somebody else ($HOME)." "Run it without sudo: it needs no root."
  fi
  FAR="$HOME/.far" BIN="$HOME/.local/bin"
  WORK="$FAR/.installing" LOG="$FAR/install.log" OWN_PYTHON="$FAR/python/$FAR_PYTHON_VERSION"
  umask 077
  "$ACTION"
}

main "$@"
