"""Make .venv in this checkout hold what the lock file says, or see at once that it already does.

    python3 scripts/environment.py core     what epijax needs to run   (requirements.txt)
    python3 scripts/environment.py dev      that, and the test tools   (requirements-dev.txt)

Standard library only. The code keeps to Python 3.6's grammar, so that an old Python gets as far as being told.

A stamp file in .venv says what is installed. It is taken away before anything changes and written last, so a
set-up that was cut short has none, and the next run builds .venv anew.
"""

import base64
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "epijax-setup.json")
LOG = os.path.join(VENV, "epijax-setup.log")
LOCKS = {"core": "requirements.txt", "dev": "requirements-dev.txt"}

# Only for a Python without ensurepip (Debian's, without python3-venv): pip is then fetched by this script.
PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"


class Failed(Exception):
    """What went wrong and what to do about it, in one line."""


def main(args):
    if len(args) != 1 or args[0] not in LOCKS:
        raise Failed("usage: python3 scripts/environment.py core|dev")
    if sys.version_info < OLDEST:
        raise Failed(
            "epijax needs Python {}.{} or newer and {} is {}: install one, then name it, as in "
            "PYTHON=python3.12 scripts/demo".format(*OLDEST, sys.executable, sys.version.split()[0])
        )
    kind = args[0]
    if up_to_date(kind):
        return
    # A terminated set-up takes pip with it, as Ctrl-C does.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)
    with alone():
        if not up_to_date(kind):  # another run may have just done it
            start = time.monotonic()
            build(kind)
            say(f"ready after {time.monotonic() - start:.0f} s")


# --- what is installed ------------------------------------------------------------------------------------------


def interpreter():
    """The Python that .venv has to be made from, and where: a venv works for one of each."""
    return [sys.implementation.name, sys.version.split()[0], os.path.realpath(sys.base_prefix), ROOT]


def wanted(kind):
    """SHA-256 of what decides the contents of .venv."""
    digest = hashlib.sha256(repr(interpreter()).encode())
    for name in (LOCKS[kind], "pyproject.toml"):
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def read_stamp():
    try:
        with open(STAMP, encoding="utf-8") as file:
            stamp = json.load(file)
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def up_to_date(kind):
    return (
        read_stamp().get(kind) == wanted(kind)
        and os.path.exists(PYTHON)
        and os.path.exists(os.path.join(VENV, "bin", "epijax"))
    )


# --- steps ------------------------------------------------------------------------------------------------------


def build(kind):
    packages = ("install", "--require-hashes", "--only-binary", ":all:", "--no-compile", "-r", LOCKS[kind])
    if read_stamp().get("interpreter") == interpreter() and os.path.exists(PYTHON):
        # A finished .venv of this Python: bring it up to date in place. What is missing is downloaded before the
        # stamp goes, so that without a network .venv stays good for what it was good for.
        say(f"updating .venv: downloading what {LOCKS[kind]} adds")
        pip(*packages, "--dry-run")
        write_stamp({})
    else:
        make_venv()
    say(f"installing {LOCKS[kind]} (the first time: a few hundred MB to download)")
    pip(*packages)
    say("installing epijax itself, editable")
    # The build backend is in the lock: no isolated build, nothing more to fetch.
    pip("install", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile", "-e", ".")
    say("compiling to bytecode")
    # On every core, and without the libraries' own tests: in half of the time that pip takes for it. Only speed
    # hangs on it, so its exit code does not count (some libraries carry files that are no valid Python 3).
    run([PYTHON, "-m", "compileall", "-qq", "-j", "0", "-x", r"[/\\]tests?[/\\]", "lib"], cwd=VENV, check=False)
    # The dev lock holds the core lock, version by version, so it serves both.
    kinds = ("core", "dev") if kind == "dev" else ("core",)
    write_stamp(dict({name: wanted(name) for name in kinds}, interpreter=interpreter()))


def make_venv():
    if os.path.islink(VENV) or (os.path.exists(VENV) and not os.path.exists(STAMP) and os.listdir(VENV)):
        raise Failed(f"{VENV} was not made by this script: move it away, then run this again")
    if os.path.exists(VENV):
        say("removing the unfinished or outdated .venv")
        write_stamp({})  # the stamp goes last, as the sign that .venv is ours
        for entry in os.scandir(VENV):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            elif entry.path != STAMP:
                os.remove(entry.path)
    else:
        os.mkdir(VENV)
        write_stamp({})
    say(f"making .venv with Python {sys.version.split()[0]} ({sys.executable})")
    base = getattr(sys, "_base_executable", None) or sys.executable
    if getattr(importlib.util.find_spec("ensurepip"), "origin", None):  # no origin: an empty folder left behind
        run([base, "-I", "-m", "venv", VENV])
        return
    run([base, "-I", "-m", "venv", "--without-pip", VENV])
    say("this Python comes without pip: fetching it")
    with tempfile.TemporaryDirectory() as folder:
        wheel = os.path.join(folder, PIP_WHEEL)
        with open(wheel, "wb") as file:
            file.write(fetch_pip())
        # A wheel is a zip file, and pip can run from it: here, to install itself.
        run([PYTHON, wheel + "/pip", "install", "--no-index", "--no-deps", "--no-compile", wheel])


def write_stamp(stamp):
    with open(STAMP + ".new", "w", encoding="utf-8") as file:
        json.dump(stamp, file)
    os.replace(STAMP + ".new", STAMP)


# --- pip --------------------------------------------------------------------------------------------------------


def pip(command, *args):
    run([PYTHON, "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--no-color", *args])


def run(command, cwd=ROOT, check=True):
    """Run a step silently; if it fails, keep its output in a file and say in a line what it means."""
    # The user's index, proxy and certificates count; what would send packages elsewhere does not.
    elsewhere = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIRE_HASHES")
    env = {name: value for name, value in os.environ.items() if name not in elsewhere}
    env["PIP_USER"] = "0"
    # Its own process group, so that all of it can be stopped; it inherits the file lock (see alone).
    child = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=False,
    )
    try:
        output = child.communicate()[0].decode("utf-8", "replace")
    except BaseException:
        try:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(child.pid, signal.SIGINT)  # lets pip take its temporary files away
                child.communicate(timeout=10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        raise
    if child.returncode and check:
        with contextlib.suppress(OSError), open(LOG, "w", encoding="utf-8") as file:
            file.write(output)
        raise Failed(meaning(output) + f" (details: {LOG})")


def meaning(output):
    """What to do about a failed step, from what it printed."""
    if re.search(r"No space left|Disk quota exceeded", output):
        return "the disk is full: free 2 GB or so, then run this again"
    if "DO NOT MATCH THE HASHES" in output:
        return "a download differs from the lock file: run this again, and if it stays so, do not trust the index"
    if re.search(
        r"Failed to establish a new connection|Connection broken|Connection aborted|Connection refused|"
        r"NewConnectionError|NameResolutionError|ConnectionError|ProxyError|ConnectTimeout|Read timed out|"
        r"SSLError|Network is unreachable|ConnectionResetError|HTTP error|HTTPError|Client Error|Server Error",
        output,
    ):
        return "could not download: check the network (PIP_INDEX_URL, PIP_PROXY, PIP_CERT), then run this again"
    missing = re.search(r"No matching distribution found for ([^\s;]+)", output)
    if missing:
        return "the package index has no {} for Python {} on this machine: try another Python, as in {}".format(
            missing.group(1), sys.version.split()[0], "PYTHON=python3.12 scripts/demo"
        )
    errors = re.findall(r"^\s*(\w*(?:ERROR|Error): .+)$", output, re.M) or output.strip().splitlines() or ["no output"]
    return "set-up failed: " + errors[-1].strip()


def fetch_pip():
    """The pinned pip's wheel, as bytes, from the package index (its simple API, PEP 503)."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    try:
        page = fetch(index).decode("utf-8", "replace")
        links = [link for link in re.findall(r"""href=["']([^"'#]+)""", page) if link.endswith("/" + PIP_WHEEL)]
        if not links:
            raise Failed(f"the package index has no {PIP_WHEEL}: set PIP_INDEX_URL, or install python3-venv")
        wheel = fetch(urllib.parse.urljoin(index, links[0]))
    except Failed:
        raise
    except Exception as error:  # urllib lets through a dozen kinds of them, and each means the same
        raise Failed(
            f"could not download pip ({type(error).__name__}): check the network (PIP_INDEX_URL, HTTPS_PROXY, "
            "PIP_CERT) or install python3-venv, then run this again"
        ) from None
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise Failed(f"the downloaded {PIP_WHEEL} is not the one expected: do not trust this index")
    return wheel


def fetch(address):
    """The bytes at an address, which may hold a name and password (urllib takes them in a header only)."""
    import ssl  # these two take longer to load than all else here does when there is nothing to do
    import urllib.request

    parts = urllib.parse.urlsplit(address)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)))
    if login:
        token = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", "Basic " + token)
    certificates = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
    with urllib.request.urlopen(request, timeout=60, context=certificates) as answer:
        return answer.read()


# --- manners ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone():
    """Hold a file lock, so that two set-ups do not write one .venv.

    The system takes it back when the last process that holds it ends, however that ends. The steps inherit it: should
    this process be killed outright, the next set-up waits until the step that it left behind is over.
    """
    import fcntl  # not on every system that can say "too old" above

    with open(os.path.join(ROOT, ".venv.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        os.set_inheritable(file.fileno(), True)
        yield


def interrupt(signum, frame):
    raise KeyboardInterrupt


def say(line):
    print("set-up: " + line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        say("stopped; run it again to start over")
        sys.exit(130)
    except Failed as failure:
        say(str(failure))
        sys.exit(1)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            say("the disk is full: free 2 GB or so, then run this again")
        elif failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            say(f"cannot write {failure.filename}: make this checkout writable, then run this again")
        else:
            say("{}: {}".format(failure.filename or "set-up failed", failure.strerror or failure))
        sys.exit(1)
