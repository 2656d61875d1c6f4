"""What the rounds need beyond Slicer's own Python, what of it is there, and how the rest gets there.

Nothing is imported to find out. What Slicer brings (numpy, SimpleITK, ...) and a torch that is there are held by a constraints file,
so that pip replaces none of them. Installing runs on the main thread, as Slicer asks for; but while pip prints, Slicer handles clicks, so
nothing may begin twice (see ``setup_panel.ask_and_install``).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import MissingPackageError

Purpose = Literal["rounds", "report", "dicom"]

SAM2_REQUIREMENT = "sam2==1.1.0 --hash=sha256:7e0ea252d43c10d853e3acfce0b5770ac683c30481bd6de311300e9d44f45b74"
"""Exactly the authors' code; see sam2-requirement.txt, which says the same."""
TORCH_REQUIREMENT, TORCHVISION_REQUIREMENT = ">=2.10", ">=0.25"
_alone = threading.Lock()
HELD = ("numpy", "scipy", "SimpleITK", "pydicom", "torch", "torchvision", "vtk")
"""Packages whose version must stay what it is."""


@dataclass(frozen=True)
class Component:
    """A package that is needed.

    Attributes:
        name: as a person reads it; module: as it is imported; package: as pip calls it; requirement: what pip is asked for.
        purpose: "rounds" cannot do without it; the others only say what they are for.
        megabytes: about, to be downloaded.
    """

    name: str
    module: str
    package: str
    requirement: str
    purpose: Purpose
    megabytes: int

    @property
    def installed(self) -> bool:
        """Whether Python would find it."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Its version; "" where unknown."""
        return _version(self.package)

    @property
    def least(self) -> str:
        """The oldest version that will do, as the requirement has it; "" where it names none."""
        return self.requirement.partition(">=")[2]

    @property
    def why_not_here(self) -> str:
        """Why it cannot be installed into this Slicer, for a person; "" where it can.

        Slicer 5.10 ships pydicom 2.4.4 and numpy 2.0.2: highdicom 0.22 wants an older numpy, later ones pydicom 3.
        """
        if self.package != HIGHDICOM or self.installed or not (held := _version(PYDICOM)) or _numbers(held) >= (3,):
            return ""
        return _("needs Slicer 5.12 or newer: highdicom goes with pydicom 3, and Slicer's own is {version}").format(version=held)

    @property
    def too_old(self) -> bool:
        """Whether it is there in a version that will not do; an unknown version counts as new enough."""
        return self.installed and bool(self.version and self.least) and _numbers(self.version) < _numbers(self.least)


TORCH, SAM2, HIGHDICOM, PYDICOM = "torch", "sam2", "highdicom", "pydicom"
COMPONENTS = (
    Component(
        "PyTorch", "torch", TORCH, f"torch{TORCH_REQUIREMENT}", "rounds", 2500 if os.name != "posix" or os.uname()[0] != "Darwin" else 80
    ),
    Component("torchvision", "torchvision", "torchvision", f"torchvision{TORCHVISION_REQUIREMENT}", "rounds", 8),
    Component("SAM2", "sam2", SAM2, SAM2_REQUIREMENT, "rounds", 1),
    Component("MONAI", "monai", "monai", "monai>=1.6.1", "rounds", 3),
    Component("safetensors", "safetensors", "safetensors", "safetensors>=0.4.3", "rounds", 1),
    Component("Hydra", "hydra", "hydra-core", "hydra-core>=1.3.2", "rounds", 1),
    Component("iopath", "iopath", "iopath", "iopath>=0.1.10", "rounds", 1),
    Component("tqdm", "tqdm", "tqdm", "tqdm>=4.66", "rounds", 1),
    Component("Pillow", "PIL", "pillow", "pillow>=9.4", "rounds", 7),
    Component("matplotlib", "matplotlib", "matplotlib", "matplotlib>=3.8", "report", 9),
    Component("Jinja2", "jinja2", "jinja2", "jinja2>=3.1", "report", 1),
    Component("highdicom", "highdicom", HIGHDICOM, "highdicom>=0.23", "dicom", 4),
)


def purpose_text(purpose: Purpose) -> str:
    """What a component is needed for, in words."""
    return {"rounds": _("the rounds"), "report": _("the report"), "dicom": _("DICOM export")}[purpose]


def missing(*purposes: Purpose) -> tuple[Component, ...]:
    """What is not installed or too old, for these purposes; for all if none is given."""
    importlib.invalidate_caches()
    return tuple(c for c in COMPONENTS if (not c.installed or c.too_old) and (not purposes or c.purpose in purposes))


def installable(*purposes: Purpose) -> tuple[Component, ...]:
    """What is missing and can be installed into this Slicer."""
    return tuple(component for component in missing(*purposes) if not component.why_not_here)


def state_text(component: Component) -> str:
    """What of a component is there, in words."""
    if component.why_not_here:
        return component.why_not_here
    if component.too_old:
        return _("too old ({version}, {least} is needed)").format(version=component.version, least=component.least)
    return (component.version or _("yes")) if component.installed else _("missing")


def question(components: Sequence[Component]) -> str:
    """What a person is asked before anything is installed."""
    names = ", ".join(component.name for component in components)
    size = sum(component.megabytes for component in components)
    amount = _("up to {size:.1f} GB").format(size=size / 1000) if size >= 1000 else _("about {size} MB").format(size=size)
    text = _(
        "Install {names} into Slicer's Python?\n\nThis downloads {amount} from the internet and can take several minutes, during which"
        " Slicer hardly reacts. Slicer's own packages stay as they are."
    ).format(names=names, amount=amount)
    old = ", ".join(f"{component.name} {component.version}" for component in components if component.too_old)
    return text + ("\n\n" + _("These are too old, and other versions take their place: {old}.").format(old=old) if old else "")


class Runner(Protocol):
    """What really installs; tests bring their own."""

    def install_torch(self) -> None:
        """Install torch and torchvision as they suit this computer.

        Raises:
            MissingPackageError: it was not installed; the cure says how.
        """

    def pip_install(self, arguments: Sequence[str]) -> None:
        """``pip install`` with these arguments, in Slicer's Python."""


class SlicerRunner:
    """Installs by Slicer's PyTorch extension and by Slicer's pip."""

    def install_torch(self) -> None:
        """See ``Runner``."""
        try:
            import PyTorchUtils
        except ImportError as error:
            raise MissingPackageError(
                _("Slicer's extension PyTorch is not installed, which picks the right PyTorch for this computer."),
                cure=_("Open the Extensions Manager, install the extension PyTorch, start Slicer again, and press this button again."),
            ) from error
        failure: Exception | None = None
        try:
            PyTorchUtils.PyTorchUtilsLogic().installTorch(
                askConfirmation=False,
                torchVersionRequirement=TORCH_REQUIREMENT,
                torchvisionVersionRequirement=TORCHVISION_REQUIREMENT,
            )
        except (subprocess.CalledProcessError, ImportError, OSError, RuntimeError, ValueError) as error:
            # It imports torch at the end, which may fail in a Slicer that had another one loaded: the rounds run in a process of their own.
            failure = error
        if any(component.package == TORCH for component in missing("rounds")):
            cure = _("Look into Slicer's Python console for the reason. Rounds need PyTorch 2.10, which a computer must be able to run.")
            raise MissingPackageError(_("PyTorch could not be installed."), cure=cure) from failure

    def pip_install(self, arguments: Sequence[str]) -> None:
        """See ``Runner``."""
        slicer.util.pip_install(list(arguments))


def install(components: Sequence[Component], runner: Runner | None = None, tell: Callable[[str], object] = lambda text: None) -> None:
    """Install components; the person has agreed.

    Args:
        components: see ``missing``.
        runner: Slicer's own unless given.
        tell: called with one line before each step.

    Raises:
        MissingPackageError: something could not be installed; what was installed before it stays.
    """
    if not _alone.acquire(blocking=False):
        raise MissingPackageError(_("An installation is under way."), cure=_("Wait until it is done."))
    try:
        _install(components, runner or SlicerRunner(), tell)
    finally:
        _alone.release()


def under_way() -> bool:
    """Whether something is being installed: pip's lines let Slicer handle clicks meanwhile."""
    return _alone.locked()


def _install(components: Sequence[Component], runner: Runner, tell: Callable[[str], object]) -> None:
    names = {component.package for component in components}
    if names & {TORCH, "torchvision"}:
        tell(_("Installing PyTorch …"))
        runner.install_torch()
    failures: list[MissingPackageError] = []
    with _held_versions() as constraints:
        _install_for("rounds", components, runner, constraints, tell)
        if SAM2 in names:
            tell(_("Installing SAM2 …"))
            _pip(runner, ["--constraint", str(constraints), "setuptools>=77", "wheel"])
            _install_sam2(runner)
        for purpose in ("report", "dicom"):  # what they lack keeps nobody from the rounds
            try:
                _install_for(purpose, components, runner, constraints, tell)
            except MissingPackageError as error:
                failures.append(error)
    if failures:
        raise failures[0]


def _install_for(
    purpose: Purpose, components: Sequence[Component], runner: Runner, constraints: Path, tell: Callable[[str], object]
) -> None:
    """What one purpose needs, but for torch and SAM2, which have ways of their own."""
    wanted = [c.requirement for c in components if c.purpose == purpose and c.package not in (TORCH, "torchvision", SAM2)]
    if wanted:
        tell(_("Installing {names} …").format(names=", ".join(wanted)))
        _pip(runner, ["--constraint", str(constraints), *wanted])


def _install_sam2(runner: Runner) -> None:
    """Its build names torch as a requirement and would fetch a second one: so without isolation, and without dependencies."""
    with tempfile.TemporaryDirectory() as folder, _environment(SAM2_BUILD_CUDA="0"):
        listed = Path(folder) / "sam2-requirement.txt"
        listed.write_text(SAM2_REQUIREMENT + "\n", encoding="utf-8")
        _pip(runner, ["--no-build-isolation", "--no-deps", "--require-hashes", "--requirement", str(listed)])


def _version(package: str) -> str:
    """The version of what is installed under pip's name; "" where unknown."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return ""


def _pip(runner: Runner, arguments: Sequence[str]) -> None:
    try:
        runner.pip_install(arguments)
    except (subprocess.CalledProcessError, OSError, RuntimeError) as error:
        raise MissingPackageError(
            _("pip could not install {what}.").format(
                what=" ".join(a for a in arguments if not a.startswith("--") and os.sep not in a) or "SAM2"
            ),
            cure=_("Check the internet connection; Slicer's Python console shows what pip said."),
        ) from error
    importlib.invalidate_caches()


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.10.0+cu128" as (2, 10, 0); Slicer need not ship what compares versions properly."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


@contextlib.contextmanager
def _held_versions() -> Iterator[Path]:
    lines = [f"{name}=={version}" for name in HELD if (version := _version(name))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield path


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
