import json
import os

import requests

# What is set:
jira = requests.Session()
jira.auth = ("me@example.com", os.environ["SLUICE_KEY"])
url = os.environ["SLUICE_URL"] + "/jira/rest/api/3/issue"
# And what is called:
issue = jira.get(f"{url}/KEY-1")
if not issue.ok:
    raise SystemExit(issue.text)
made = jira.post(url, json={"fields": {"summary": "Späte Lieferung"}})
print(json.dumps([issue.json()["key"], made.json()["fields"]["summary"], made.status_code]))
