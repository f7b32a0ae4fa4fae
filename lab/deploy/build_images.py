"""``python -m lab.deploy.build_images [NAME …]``: what ``make setup`` builds images with."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lab.deploy.images import IMAGES, ensure_images
from lab.errors import Exit, LabError, UsageError


def main(argv: Sequence[str]) -> int:
    """Build the named images, or all; prints each image's state. Exit code as of every command."""
    try:
        unknown = sorted(set(argv) - set(IMAGES))
        if unknown:
            raise UsageError(f"no such image: {', '.join(unknown)}", hint=f"There are: {', '.join(IMAGES)}.")
        images = ensure_images(argv or IMAGES, progress=_tell)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    for name, reason in images.unavailable.items():
        print(f"warning: no {name}, what needs it will not run: {reason}", file=sys.stderr)
    return int(Exit.MET)


def _tell(name: str, what: str) -> None:
    # A line for each state; the steps in between would be seventy lines.
    if not what[:1].isdigit():
        print(f"    {name:<20} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
