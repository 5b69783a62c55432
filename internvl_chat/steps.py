"""Running documented commands one after the other, as a user would type them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Where the shell scripts and the two entries of the root are: these commands need a checkout.
REPOSITORY = Path(__file__).resolve().parent.parent


class StepFailed(SystemExit):
    """A command of the path failed; its own output says why."""


def run(command: Sequence[object], extra_env: Mapping[str, str] | None = None, log: Path | None = None) -> str:
    """Run a command from the repository's root, shown as one would type it; returns what it printed.

    With `log`, its output goes to that file instead of the screen.

    Raises:
        StepFailed: its exit code is not 0.
    """
    words = [str(word) for word in command]
    settings = "".join(f"{key}={shlex.quote(value)} " for key, value in (extra_env or {}).items())
    sys.stdout.write(f"\n$ {settings}{shlex.join(words)}\n")
    sys.stdout.flush()
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "TOKENIZERS_PARALLELISM": "false", **(extra_env or {})}
    with subprocess.Popen(
        words,
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if log else None,
    ) as process:
        assert process.stdout is not None
        lines = []
        with (log or Path(os.devnull)).open("w") as file:
            for line in process.stdout:
                lines.append(line)
                file.write(line)
                if log is None:
                    sys.stdout.write(line)
                    sys.stdout.flush()
    if process.returncode:
        if log:
            sys.stdout.write("".join(lines[-30:]))
        raise StepFailed(
            f"the command above failed with exit code {process.returncode}" + (f": see {log}" if log else "")
        )
    return "".join(lines)
