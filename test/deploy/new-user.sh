#!/bin/sh
# A new user's path from nothing to the first call, every command as it would be typed. In an empty folder: sh new-user.sh TARBALL.
# In a clone: sh new-user.sh. PORT, ADMIN_PORT, VENDOR_PORT and CONTROL_PORT are free ports.
# Each program that runs on is a process group, which can be told to stop as a whole: npx passes no signals on.
set -eu
if [ $# -gt 0 ]; then npm install --prefer-offline --no-audit "$1"; else npm ci --prefer-offline; fi

# In place of the vendor.
setsid npx sluice sandbox --port "$VENDOR_PORT" --control-port "$CONTROL_PORT" > vendor.log 2>&1 &
vendor=$!

export HARNESS_API_KEY=pat.demo1234.id.secret
npx sluice init --preset harness --url "http://127.0.0.1:$VENDOR_PORT" --account prod --account-id demo1234 \
  --secret env:HARNESS_API_KEY --client my-tool | tee init.log
setsid npx sluice start --port "$PORT" --admin-port "$ADMIN_PORT" > sluice.log 2>&1 &
gateway=$!
# npx ends before what it started, which still writes its store and its compiled code into a folder that the caller removes.
# Not for ever: where process 1 collects no children, what has ended stays in its group.
stop() {
  kill -- -$vendor -$gateway
  wait
  patience=100
  while kill -0 -- -$vendor 2> /dev/null || kill -0 -- -$gateway 2> /dev/null; do
    [ $((patience -= 1)) -gt 0 ] || break
    sleep 0.1
  done
}
trap stop EXIT
until grep -q '"msg":"listening"' sluice.log; do
  kill -0 $gateway || { cat sluice.log; exit 1; }
  sleep 0.1
done

key=$(sed -n 's/^Key of my-tool, shown only now:  //p' init.log)
curl --silent --show-error --fail-with-body "http://127.0.0.1:$PORT/ng/api/projects?accountIdentifier=demo1234" -H "x-api-key: $key"
echo
npx sluice quota --once --url "http://127.0.0.1:$ADMIN_PORT"
