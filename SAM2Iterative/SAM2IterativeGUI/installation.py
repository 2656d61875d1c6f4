"""What the rounds need beyond Slicer's own Python, what of it is there, and how the rest gets there.

Nothing is imported to find out. What Slicer brings (numpy, SimpleITK, ...) and a torch that is there are held by a constraints file,
so that pip replaces none of them. Installing runs on the main thread, as Slicer asks for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import tempfile
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
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(self.package)
        return ""

    @property
    def least(self) -> str:
        """The oldest version that will do, as the requirement has it; "" where it names none."""
        return self.requirement.partition(">=")[2]

    @property
    def too_old(self) -> bool:
        """Whether it is there in a version that will not do; an unknown version counts as new enough."""
        return self.installed and bool(self.version and self.least) and _numbers(self.version) < _numbers(self.least)


TORCH, SAM2 = "torch", "sam2"
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
    Component("highdicom", "highdicom", "highdicom", "highdicom>=0.23", "dicom", 4),
)


def purpose_text(purpose: Purpose) -> str:
    """What a component is needed for, in words."""
    return {"rounds": _("the rounds"), "report": _("the report"), "dicom": _("DICOM export")}[purpose]


def missing(*purposes: Purpose) -> tuple[Component, ...]:
    """What is not installed or too old, for these purposes; for all if none is given."""
    importlib.invalidate_caches()
    return tuple(c for c in COMPONENTS if (not c.installed or c.too_old) and (not purposes or c.purpose in purposes))


def state_text(component: Component) -> str:
    """What of a component is there, in words."""
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
        " Slicer does not react. Slicer's own packages stay as they are."
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
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=False,
            torchVersionRequirement=TORCH_REQUIREMENT,
            torchvisionVersionRequirement=TORCHVISION_REQUIREMENT,
        )
        if torch is None:
            raise MissingPackageError(_("PyTorch could not be installed."), cure=_("Look into Slicer's Python console for the reason."))

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
    runner = runner or SlicerRunner()
    names = {component.package for component in components}
    if names & {TORCH, "torchvision"}:
        tell(_("Installing PyTorch …"))
        runner.install_torch()
    with _held_versions() as constraints:
        rest = [c.requirement for c in components if c.package not in (TORCH, "torchvision", SAM2)]
        if rest:
            tell(_("Installing {names} …").format(names=", ".join(rest)))
            _pip(runner, ["--constraint", str(constraints), *rest])
        if SAM2 in names:
            tell(_("Installing SAM2 …"))
            _pip(runner, ["--constraint", str(constraints), "setuptools>=77,<81", "wheel"])
            _install_sam2(runner)


def _install_sam2(runner: Runner) -> None:
    """Its build names torch as a requirement and would fetch a second one: so without isolation, and without dependencies."""
    with tempfile.TemporaryDirectory() as folder, _environment(SAM2_BUILD_CUDA="0"):
        listed = Path(folder) / "sam2-requirement.txt"
        listed.write_text(SAM2_REQUIREMENT + "\n", encoding="utf-8")
        _pip(runner, ["--no-build-isolation", "--no-deps", "--require-hashes", "--requirement", str(listed)])


def _pip(runner: Runner, arguments: Sequence[str]) -> None:
    import subprocess

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
    lines = []
    for name in HELD:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            lines.append(f"{name}=={importlib.metadata.version(name)}")
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
