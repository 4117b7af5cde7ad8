#!/bin/sh
# A new user's path from nothing to the first call, every command as it would be typed. In an empty folder: sh new-user.sh TARBALL.
# In a clone: sh new-user.sh. PORT and ADMIN_PORT are free ports.
set -eu
if [ $# -gt 0 ]; then npm install --prefer-offline --no-audit "$1"; else npm ci --prefer-offline; fi

# With nothing configured, start serves a sandbox.
npx sluice start --port "$PORT" --admin-port "$ADMIN_PORT" > sluice.log 2>&1 &
until grep -q '"msg":"listening"' sluice.log; do
  kill -0 $! || { cat sluice.log; exit 1; }
  sleep 0.1
done
# npx passes no signals on, so it is the gateway itself that is told to stop.
gateway=$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' sluice.log | head -n 1)
trap 'kill "$gateway"; wait' EXIT

curl --silent --show-error --fail-with-body "http://127.0.0.1:$PORT/harness/ng/api/projects?accountIdentifier=demo1234"
echo
npx sluice quota --once --url "http://127.0.0.1:$ADMIN_PORT"
