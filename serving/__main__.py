"""``python -m serving``: run the service until it is told to stop."""

import asyncio
import logging
import sys

from recsys.config import ConfigError, load_config
from recsys.settings import load_settings
from serving.config import ServingConfig, read_environment
from serving.parent import Parent, PortInUseError


def main() -> int:
    """Serve on RECSYS_SERVICE_HOST:RECSYS_SERVICE_PORT. Returns the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s | %(levelname)s | %(name)s | %(message)s"
    )
    try:
        settings = load_settings()
        asyncio.run(
            Parent(settings, load_config(settings, ServingConfig), read_environment()).run()
        )
    except (ConfigError, PortInUseError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
