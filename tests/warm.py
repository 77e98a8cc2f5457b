"""Commands without the seconds that importing torch takes: a process that has imported everything
forks for each.

`python warm.py FOLDER` writes two scripts into FOLDER and serves them: `eyeline`, and `code`, which
runs the Python text it is given. They hand over their arguments, folder, environment and streams,
and end as what was run ends.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    status = server.recv(8)
sys.exit(int(status))
"""


@contextmanager
def warm(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """`folder`, in which the two scripts lie as long as the block lasts."""
    command = [sys.executable, __file__, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        if not server.stdout.readline():
            raise RuntimeError(f"{command} has not started")
        try:
            yield folder
        finally:
            server.terminate()


def serve(folder: Path) -> None:
    import eyeline.cli.app
    import eyeline.training  # what most commands import only when they run
    import eyeline.training.build  # noqa: F401

    address = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        for name in ("eyeline", "code"):
            script = folder / name
            script.write_text(SCRIPT.format(python=sys.executable, address=address))
            script.chmod(0o755)
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if not (child := os.fork()):
                listener.close()
                run(client)  # ends this process
            threading.Thread(target=tell, args=(client, child), daemon=True).start()


def tell(client: socket.socket, child: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with client:
        client.sendall(str(status if status >= 0 else 128 - status).encode())


def run(client: socket.socket) -> None:
    head, streams, _, _ = socket.recv_fds(client, 4, 3)
    request = b""
    while len(request) < int.from_bytes(head, "big"):
        request += client.recv(65536)
    client.close()
    (script, *arguments), folder, environment = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if script.endswith("code"):
        sys.argv = ["-c"]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
        sys.exit()
    from eyeline.cli.main import main

    sys.argv = ["eyeline", *arguments]
    main()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
