#!/bin/sh
# Installs the clients of other projects that tests run through the relay: aioice from PyPI into
# target/clients/venv, the others from npm into node_modules beside this script.
#
# Fails for none of them. What could not be installed has a line in target/clients/NAME.missing, which
# the tests tell; it begins with "unreachable" if the registry did not answer.
cd "$(dirname "$0")" || exit 1
target=../../target/clients
mkdir -p "$target"

# attempt NAME FOLDER LOCK PROBE COMMAND...: runs COMMAND to fill FOLDER, unless it has done so for
# this LOCK before. PROBE tells whether the registry answers at all.
attempt() {
  name=$1 folder=$2 lock=$3 probe=$4
  shift 4
  if cmp -s "$lock" "$folder/.castling-lock"; then return; fi
  rm -f "$target/$name.missing"
  if "$@" > "$target/$name.log" 2>&1; then
    cp "$lock" "$folder/.castling-lock"
    return
  fi
  if sh -c "$probe" > /dev/null 2>&1; then how=refused; else how=unreachable; fi
  reason=$(grep -i -m 1 -E 'error|unable|cannot|no such' "$target/$name.log" | cut -c 1-160)
  echo "$how: ${reason:-see $target/$name.log}" > "$target/$name.missing"
  echo "not installed from $name: $(cat "$target/$name.missing")" >&2
}

from_npm() {
  npm install --no-save --no-audit --no-fund
}

from_pypi() {
  # Debian's own, which python3-venv belongs to.
  /usr/bin/python3 -m venv --clear "$target/venv" &&
    "$target/venv/bin/pip" install --disable-pip-version-check --requirement requirements.txt
}

attempt npm node_modules package-lock.json "npm ping" from_npm
attempt pypi "$target/venv" requirements.txt \
  "$target/venv/bin/pip download --no-deps --dest $target/probe ifaddr" from_pypi
