"""Python in a process of its own whose start costs nothing: a fork of a process that has imported torch and nothing of zoo.

It has what the first optimizer and the first run import too, which takes as long as torch itself.

Run as a module, this is that process: for each line of JSON it forks, and the fork runs the code with the arguments, environment
and folder of the line.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS = 120
ROOT = Path(__file__).resolve().parents[1]


def run_warm(code: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code as ``python -c`` does, by a fork that has torch already."""
    parent = _parent(os.getpid())
    assert parent.stdin is not None
    assert parent.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        line = {"code": code, "arguments": arguments, "env": dict(env), "cwd": str(cwd), "out": str(out), "err": str(err)}
        parent.stdin.write(json.dumps(line) + "\n")
        parent.stdin.flush()
        child = int(parent.stdout.readline())
        timer = threading.Timer(SECONDS, os.kill, (child, signal.SIGKILL))
        timer.start()
        status = int(parent.stdout.readline())
        timer.cancel()
        timer.join()
        return subprocess.CompletedProcess(["python", "-c", code, *arguments], status, out.read_text(), err.read_text())


@functools.cache
def _parent(_: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.warm_process"]  # as a script it would see this folder's packages as modules of the library
    parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, parent)
    return parent


def _end(parent: subprocess.Popen[str]) -> None:
    with parent:
        parent.kill()


def _serve() -> None:
    import accelerate  # noqa: F401  # so that forks have it, and torch
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # noqa: F401

    del sys.path[0]  # the folder of the project, which ``python -c`` has not where it runs elsewhere
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(wanted)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(wanted: dict[str, Any]) -> None:
    code = 1
    try:
        for number, place in enumerate((os.devnull, wanted["out"], wanted["err"])):
            os.dup2(os.open(place, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115  # for the life of the process
        os.environ.clear()
        os.environ.update(wanted["env"])
        os.chdir(wanted["cwd"])
        sys.path[:0] = ["", *filter(None, wanted["env"].get("PYTHONPATH", "").split(os.pathsep))]
        sys.argv = ["-c", *wanted["arguments"]]
        main = sys.modules["__main__"] = type(sys)("__main__")
        exec(compile(wanted["code"], "<string>", "exec"), main.__dict__)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does before it ends
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
