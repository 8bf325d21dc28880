"""What it costs a process that is not Airflow's to get a Slack client: provider hook or SDK.

Reference: an interpreter that imports neither, measured in the same run.
"""

import subprocess
import sys
import tempfile

ROUNDS = 3
MEASURE = """
import resource, time, logging
logging.basicConfig()
access = logging.getLogger("uvicorn.access")
access.addHandler(logging.StreamHandler())
began = time.perf_counter()
{statement}
seconds = time.perf_counter() - began
megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(seconds, megabytes, len(access.handlers))
"""
STATEMENTS = {
    "nothing (reference)": "pass",
    "slack_sdk client": "from slack_sdk.webhook import WebhookClient",
    "provider hook": "from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook",
}


def measure(statement: str) -> tuple[float, float, int]:
    """Seconds (the best of several), megabytes at the peak, handlers left on uvicorn.access."""
    best = (float("inf"), 0.0, 0)
    with tempfile.TemporaryDirectory() as home:
        for _ in range(ROUNDS):
            output = subprocess.run(
                [sys.executable, "-c", MEASURE.format(statement=statement)],
                env={"AIRFLOW_HOME": home, "PATH": ""},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            best = min(best, (float(output[-3]), float(output[-2]), int(output[-1])))
    return best


def main() -> None:
    print(f"{'import':22} {'seconds':>8} {'MB':>6} {'x MB':>6}  handlers left on uvicorn.access")
    reference = measure(STATEMENTS["nothing (reference)"])
    for name, statement in STATEMENTS.items():
        seconds, megabytes, handlers = measure(statement)
        ratio = megabytes / reference[1]
        print(f"{name:22} {seconds:8.2f} {megabytes:6.0f} {ratio:6.1f}  {handlers} of 1")


if __name__ == "__main__":
    main()
