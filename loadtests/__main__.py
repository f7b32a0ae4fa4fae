"""``python -m loadtests --config load.json``: run a load, inside the client node."""

from __future__ import annotations

from gevent import monkey

# Before anything else is imported: psycopg looks at this when it chooses how to wait.
monkey.patch_all()

import argparse  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from loadtests.config import LoadConfig  # noqa: E402
from loadtests.process import run_alone, run_master, run_worker  # noqa: E402


def main() -> int:
    """Exit codes: 0 the load ran, whatever its requests met; 1 it could not run; 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="loadtests", description=__doc__)
    parser.add_argument("--config", required=True, help="JSON file, see loadtests.config")
    parser.add_argument("--worker", type=int, help="number of this worker (the master passes it)")
    parser.add_argument("--master-port", type=int, help="port of the master (the master passes it)")
    arguments = parser.parse_args()
    del sys.argv[1:]  # Locust's web UI parses what it finds there
    try:
        config = LoadConfig.load(arguments.config)
    except (OSError, ValueError) as error:
        print(f"{arguments.config}: {error}", file=sys.stderr)
        return 2
    Path(config.out).mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=Path(config.out) / "log.txt",
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s",
    )
    try:
        if arguments.worker is not None:
            return run_worker(config, arguments.worker, arguments.master_port)
        return run_alone(config) if config.workers == 1 else run_master(config, arguments.config)
    except Exception:
        logging.exception("the load failed")
        raise


if __name__ == "__main__":
    sys.exit(main())
