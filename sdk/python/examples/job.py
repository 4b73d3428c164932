"""An answer that nobody waits for: a job. Nobody need keep a connection open meanwhile.

FAR_GATEWAY=… FAR_API_KEY=… python examples/job.py
"""

import os

from farlabs import FarLabsClient

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")
MODEL = os.environ.get("FAR_MODEL", "far-demo")

with FarLabsClient(GATEWAY, api_key=os.environ["FAR_API_KEY"]) as client:
    submitted = client.submit_job(MODEL, "Tell me a story.", max_tokens=50)
    print(f"{submitted.job_id} is {submitted.status}")
    job = client.wait_for_job(submitted.job_id, timeout=300)
    print(f"{job.status}: {job.result.text if job.result else job.error}")
