"""What bash offers after Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    command = tmp_path / "eyeline"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m eyeline "$@"\n')
    command.chmod(0o755)
    script = """
        source <(_EYELINE_COMPLETE=source_bash eyeline)
        complete -p eyeline
        COMP_WORDS=(eyeline pre) COMP_CWORD=1; _eyeline_completion eyeline; echo "${COMPREPLY[@]}"
        COMP_WORDS=(eyeline predict --json) COMP_CWORD=2
        _eyeline_completion eyeline; echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.stderr == ""
    registered, commands, options = done.stdout.splitlines()
    assert registered.endswith("-F _eyeline_completion eyeline")
    assert (commands, options) == ("predict", "--json-lines")
