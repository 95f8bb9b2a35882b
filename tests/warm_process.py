"""Python in a process of its own whose start costs nothing: a fork of a process that has imported torch and nothing of zoo.

It has what the first optimizer and the first run import too, which takes as long as torch itself.

Run as a module, this is that process: for each entry of a line of JSON it forks, and the fork runs the code with the arguments,
environment and folder of the entry.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 120
ROOT = Path(__file__).resolve().parents[1]


def run_warm(
    code: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, seconds: float = SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run code as ``python -c`` does, by a fork that has torch already and is killed after so many seconds."""
    return _run_all(code, arguments, [env], cwd, seconds)[0]


def run_warm_ranks(
    code: str, arguments: Sequence[str], count: int, *, env: Mapping[str, str], cwd: Path
) -> list[subprocess.CompletedProcess[str]]:
    """Run code by several such forks at once, with the environment variables that a launcher gives its ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        shared = {**env, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return _run_all(code, arguments, [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)], cwd)


def _run_all(
    code: str, arguments: Sequence[str], envs: Sequence[Mapping[str, str]], cwd: Path, seconds: float = SECONDS
) -> list[subprocess.CompletedProcess[str]]:
    parent = _parent(os.getpid())
    assert parent.stdin is not None
    assert parent.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        places = [(Path(folder, f"out{number}"), Path(folder, f"err{number}")) for number in range(len(envs))]
        one = {"code": code, "arguments": arguments, "cwd": str(cwd)}
        line = [one | {"env": dict(env), "out": str(out), "err": str(err)} for env, (out, err) in zip(envs, places, strict=True)]
        parent.stdin.write(json.dumps(line) + "\n")
        parent.stdin.flush()
        timer = threading.Timer(seconds, _kill, [json.loads(parent.stdout.readline())])
        timer.start()
        codes = json.loads(parent.stdout.readline())
        timer.cancel()
        timer.join()
        command = ["python", "-c", code, *arguments]
        return [
            subprocess.CompletedProcess(command, status, out.read_text(), err.read_text())
            for status, (out, err) in zip(codes, places, strict=True)
        ]


def _kill(children: Sequence[int]) -> None:
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


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
    gc.disable()
    import accelerate  # noqa: F401  # so that forks have it, and torch
    import safetensors.torch  # noqa: F401
    import torch._dynamo  # noqa: F401

    gc.freeze()  # so that no fork looks through them for garbage
    gc.enable()
    del sys.path[0]  # the folder of the project, which ``python -c`` has not where it runs elsewhere
    for line in sys.stdin:
        children = []
        for wanted in json.loads(line):
            child = os.fork()
            if child == 0:
                _run(wanted)
            children.append(child)
        print(json.dumps(children), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)


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
