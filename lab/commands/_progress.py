"""How `lab up` shows its progress: live on a terminal, line by line elsewhere. Always on standard error."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from lab import terminal
from lab.deploy.readiness import Check

_MARKS = {True: ("✓", "green"), False: ("·", "yellow")}


class UpProgress:
    """A reporter of ``lab.deploy.up``; a context manager around the live display."""

    def __init__(self, lab: str) -> None:
        self._lab = lab
        self._console: Console = terminal.err()
        self._live: Live | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._began = time.monotonic()
        self._stage = ""
        self._images: dict[str, str] = {}
        self._nodes: dict[str, str] = {}
        self._checks: dict[str, Check] = {}
        self.notes: list[str] = []

    def __enter__(self) -> UpProgress:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._view, console=self._console, refresh_per_second=8, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    # --- what the reporter is told

    def stage(self, text: str) -> None:
        """Something begins."""
        self._stage = text
        if self._live is None and text != "images":
            self._line(text)

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.notes.append(text)
        self._console.print(Text.assemble(("note: ", "cyan"), text))

    def image(self, name: str, doing: str) -> None:
        """What is being done about an image."""
        self._images[name] = doing
        if self._live is None and (doing.startswith("built") or doing in ("building", "not available")):
            self._line(f"image {name}: {doing}")

    def plan(self, nodes: list[str]) -> None:
        """The nodes that will come up."""
        self._images.clear()
        self._nodes = dict.fromkeys(nodes, "")

    def node(self, name: str, state: str) -> None:
        """A node's state."""
        self._nodes[name] = state

    def check(self, check: Check) -> None:
        """A readiness check changed."""
        before = self._checks.get(check.name)
        self._checks[check.name] = check
        if self._live is None and check.ok and not (before and before.ok):
            self._line(f"{check.name}: {check.detail}")

    def _line(self, text: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:6.1f} s[/]  {text}", highlight=False)

    # --- the live view

    def _view(self) -> RenderableType:
        head = Text.assemble(
            ("lab ", ""),
            (self._lab, "bold"),
            f"  {self._stage}  ",
            (f"{time.monotonic() - self._began:.0f} s", "dim"),
        )
        self._spinner.update(text=head)
        if self._images and not self._nodes:
            return Group(self._spinner, self._image_table())
        return Group(self._spinner, self._node_table()) if self._nodes else self._spinner

    def _image_table(self) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
        for name, doing in self._images.items():
            done = doing == "present" or doing.startswith(("built", "ready"))
            table.add_row(
                Text(name, style="" if done else "bold"), Text(doing, style="green" if done else "dim")
            )
        return table

    def _node_table(self) -> Table:
        by_node: dict[str, list[Check]] = {}
        for check in self._checks.values():
            by_node.setdefault(check.node, []).append(check)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), pad_edge=False)
        for check in by_node.get("", []):
            mark, style = _MARKS[check.ok]
            table.add_row(Text(mark, style=style), Text(check.name, style="bold"), _detail(check.detail))
        for name in self._nodes:
            mark, style, detail = self._summary(name, by_node.get(name, []))
            table.add_row(Text(mark, style=style), Text(name), _detail(detail))
        return table

    def _summary(self, name: str, checks: list[Check]) -> tuple[str, str, str]:
        state = self._nodes[name]
        if checks:
            open_ones = [check for check in checks if not check.ok]
            shown = open_ones[:1] or checks
            mark, style = _MARKS[not open_ones]
            return mark, style, ", ".join(check.detail for check in shown)
        if state == "running":
            return "✓", "green", "running"
        return ("✗", "red", state) if state in ("exited", "dead") else ("·", "dim", state or "waiting")


def _detail(text: str) -> Text:
    return Text(text, style="dim", overflow="ellipsis", no_wrap=True)
