"""``python -m serving``: run the service until it is told to stop."""

import logging
import sys

import uvicorn

from recsys.settings import ConfigError, load_settings
from serving.config import load_config, read_environment


def main() -> int:
    """Serve on RECSYS_SERVICE_HOST:RECSYS_SERVICE_PORT. Returns the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s | %(levelname)s | %(name)s | %(message)s"
    )
    try:
        environment = read_environment()
        load_config(load_settings())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    uvicorn.run(
        "serving.app:create_app",
        factory=True,
        host=environment.host,
        port=environment.port,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=15,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
