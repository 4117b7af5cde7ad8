"""A client of the Harness API that knows nothing of Sluice: only its base URL points to the gateway.

    HARNESS_BASE_URL=http://127.0.0.1:8080 HARNESS_ACCOUNT_ID=demo1234 python3 harness_client.py

HARNESS_API_KEY is your Sluice key with a gateway that has `clients`, and Harness's own key without a gateway. The demo
needs none. It needs the package `requests`.
"""

import os
import sys
import time

import requests

BASE_URL = os.environ.get("HARNESS_BASE_URL", "http://127.0.0.1:8080").rstrip("/")
SCOPE = {
    "accountIdentifier": os.environ.get("HARNESS_ACCOUNT_ID", "demo1234"),
    "orgIdentifier": "default",
    "projectIdentifier": "example",
}
PIPELINE = "example_py"

session = requests.Session()
if "HARNESS_API_KEY" in os.environ:
    session.headers["x-api-key"] = os.environ["HARNESS_API_KEY"]


def call(method, path, params=None, **options):
    """Sends one request. There is no retry here: with a gateway in front, calls that may be retried already were."""
    return session.request(method, BASE_URL + path, params={**SCOPE, **(params or {})}, timeout=60, **options)


def data_of(response):
    """What stands in the vendor's envelope. Raises `requests.HTTPError` for an error."""
    response.raise_for_status()
    return response.json()["data"]


def pipelines(size=2):
    """All pipelines of the project, page by page."""
    page, pages = 0, 1
    while page < pages:
        data = data_of(call("POST", "/pipeline/api/pipelines/list", {"page": page, "size": size}, json={}))
        yield from data["content"]
        page, pages = page + 1, data["totalPages"]


def pipeline_or_new(identifier):
    """The pipeline, made if it is not there. Harness says 404 for one that is missing, and 400 for one that was just made."""
    path = "/pipeline/api/pipelines/" + identifier
    response = call("GET", path)
    if response.status_code == 404:
        yaml = f"pipeline:\n  identifier: {identifier}\n  name: Example in Python\n"
        created = call("POST", "/pipeline/api/pipelines/v2", data=yaml, headers={"Content-Type": "application/yaml"})
        if not created.ok and created.json().get("code") != "DUPLICATE_FIELD":
            created.raise_for_status()
        response = call("GET", path)
    return data_of(response)["pipeline"]


def run(identifier, poll_seconds=0.25):
    """Starts the pipeline and gives the status with which it ended."""
    execution = data_of(call("POST", f"/pipeline/api/pipeline/execute/{identifier}"))["planExecution"]["uuid"]
    while True:
        summary = data_of(call("GET", f"/pipeline/api/pipelines/execution/v2/{execution}"))["pipelineExecutionSummary"]
        if summary["status"] not in ("Running", "NotStarted", "Queued"):
            return summary["status"]
        time.sleep(poll_seconds)


def main():
    print("pipeline:", pipeline_or_new(PIPELINE)["name"])
    print("pipelines:", ", ".join(pipeline["identifier"] for pipeline in pipelines()))
    status = run(PIPELINE)
    print("execution:", status)
    return 0 if status == "Success" else 1


if __name__ == "__main__":
    sys.exit(main())
