import json
import os

import httpx

# What is set:
url = os.environ["SLUICE_URL"] + "/any"
client = httpx.Client(base_url=url, headers={"authorization": "Bearer " + os.environ["SLUICE_KEY"]})
# And what is called:
thing = client.get("/things/1")
if not thing.is_success:
    raise SystemExit(thing.text)
made = client.post("/things", json={"name": "a"})
print(json.dumps([thing.json()["id"], made.json()["name"]]))
