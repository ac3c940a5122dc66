# Copyright (c) haku.river contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run every sanity test of ansible-test on the collection as it is shipped, without any ignore file.

To be run with the interpreter of the virtual environment that has ansible-core. What ansible-test installs for itself
stays in build/sanity for the next run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages
from ansible_test._util.target.common.constants import CONTROLLER_PYTHON_VERSIONS, REMOTE_ONLY_PYTHON_VERSIONS

WORK = Path("build/sanity").absolute()
HOME = WORK / "home"
TOOLS = Path(sys.executable).parent
PYTHON_VERSIONS = (*REMOTE_ONLY_PYTHON_VERSIONS, *CONTROLLER_PYTHON_VERSIONS)

PIP_BOOTSTRAP = """\
import ensurepip

ensurepip.bootstrap(upgrade=True, default_pip=True)
"""


def main() -> int:
    """Run ansible-test, with the arguments of the command line, and return its exit code."""
    make_home()
    environment = {**os.environ, "HOME": str(HOME), "PATH": interpreters_path()}
    command = [str(TOOLS / "ansible-test"), "sanity", "--requirements", "--color", "no", *sys.argv[1:]]
    # Outside the checkout, or ansible-test would ask its Git for the files, and hear that this folder is ignored.
    with tempfile.TemporaryDirectory(prefix="haku-river-sanity-") as scratch:
        tree = Path(scratch, "ansible_collections/haku/river")  # ansible-test wants a path of this form
        unpack_collection(tree)
        return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


def unpack_collection(tree: Path) -> None:
    """Build the collection's artifact and unpack it, so that what is tested is what users get."""
    build = [str(TOOLS / "ansible-galaxy"), "collection", "build", "--force", "--output-path", str(WORK)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    (artifact,) = WORK.glob("haku-river-*.tar.gz")
    with tarfile.open(artifact) as archive:
        archive.extractall(tree, filter="data")
    artifact.unlink()


def make_home() -> None:
    """Make a home directory in which ansible-test finds pip's bootstrap script.

    It would download that script from a host that not every network reaches; Python brings a pip along that does as
    well. pip's own configuration and cache stay those of the user.
    """
    cache = HOME / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in PYTHON_VERSIONS:
        pip_version = get_venv_packages(SimpleNamespace(version=version))["pip"]
        (cache / f"get_pip_{pip_version.replace('.', '_')}.py").write_text(PIP_BOOTSTRAP)
    for name in (".pip", ".config/pip", ".cache/pip"):
        link = HOME / name
        if (Path.home() / name).exists() and not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(Path.home() / name)


def interpreters_path() -> str:
    """Return a PATH with one working interpreter for each Python version that this machine has.

    pyenv has a shim on the PATH for every version, also for those that do not start; ansible-test takes them at their
    word.
    """
    chosen = WORK / "bin"
    shutil.rmtree(chosen, ignore_errors=True)
    chosen.mkdir()
    directories = [Path(name) for name in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for version in PYTHON_VERSIONS:
        name = f"python{version}"
        places = [*directories, *(pyenv / "versions").glob(f"{version}.*/bin")]
        working = next((place / name for place in places if works(place / name)), None)
        if working:
            (chosen / name).symlink_to(working)
    rest = [place for place in directories if place.name != "shims"]
    return os.pathsep.join(map(str, [chosen, TOOLS, *rest]))


def works(interpreter: Path) -> bool:
    """Tell whether this is an interpreter and no shim."""
    if not interpreter.exists() or "shims" in interpreter.parts:
        return False
    return subprocess.run([interpreter, "-c", ""], check=False, stderr=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
