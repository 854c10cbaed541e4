"""Drives a stock fal-client, of whatever version lies on the path.

Reads a list of steps, as JSON, from stdin, and writes one JSON line for each: {"value": …} or
{"error": {"status", "message"}}. The first argument, if there is one, is a file with lines of code to
run before, as `client-env --client python` prints them.
"""

import asyncio
import json
import pathlib
import sys
import time

import fal_client

PATIENCE_S = 60


def run(step):
    return fal_client.run(step["app"], arguments=step["input"])


def run_async(step):
    return asyncio.run(fal_client.run_async(step["app"], arguments=step["input"]))


def stream(step):
    return list(fal_client.stream(step["app"], arguments=step["input"]))


def subscribe(step):
    seen = []
    value = fal_client.subscribe(
        step["app"],
        arguments=step["input"],
        with_logs=True,
        on_queue_update=lambda update: seen.append(update),
    )
    return {"value": value, "statuses": names(seen), "logs": messages(seen[-1])}


def submit(step):
    handle = fal_client.submit(
        step["app"], arguments=step["input"], webhook_url=step.get("webhook")
    )
    last = until(handle.request_id, step["app"], fal_client.Completed)
    value = fal_client.result(step["app"], handle.request_id)
    again = handle.get()
    assert again == value, "the result is repeated"
    return {"request_id": handle.request_id, "value": value, "logs": messages(last)}


def cancel(step):
    handle = fal_client.submit(step["app"], arguments=step["input"])
    until(handle.request_id, step["app"], fal_client.InProgress)
    fal_client.cancel(step["app"], handle.request_id)
    until(handle.request_id, step["app"], fal_client.Completed)
    return fal_client.result(step["app"], handle.request_id)


def upload(step):
    url = fal_client.upload(pathlib.Path(step["file"]).read_bytes(), "image/png")
    by_path = fal_client.upload_file(step["file"])
    assert url != by_path, "every upload has a name of its own"
    value = fal_client.run(step["app"], arguments={**step["input"], "image_url": url})
    return {"url": url, "value": value}


def until(request_id, app, kind):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        status = fal_client.status(app, request_id, with_logs=True)
        if isinstance(status, kind):
            return status
        assert time.monotonic() < deadline, f"{status} for too long"
        time.sleep(0.05)


def names(updates):
    return [type(update).__name__ for update in updates]


def messages(update):
    return [line["message"] for line in getattr(update, "logs", None) or []]


def main():
    if len(sys.argv) > 1:
        exec(pathlib.Path(sys.argv[1]).read_text(), {})
    for step in json.load(sys.stdin):
        try:
            outcome = {"value": globals()[step["op"]](step)}
        except Exception as error:
            status = getattr(error, "status_code", None)
            outcome = {"error": {"status": status, "message": str(error), "kind": type(error).__name__}}
        print(json.dumps(outcome), flush=True)


main()
