"""The choices of the tab Setup that ``plan.toml`` decides once it is made: shown as it has them, and written there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _

from SAM2IterativeLib.dedicated.plan import Plan, change_plan, read_plan  # needs no torch
from SAM2IterativeLib.errors import SettingsError
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.round_method import method_under_way
from SAM2IterativeLib.settings import replaced

METHOD, NETWORK, FIRST_STEPS, ROUND_STEPS = "method", "dedicated.network", "dedicated.first_steps", "dedicated.round_steps"


@dataclass(frozen=True)
class PlannedChoices:
    """What the plan says.

    Attributes:
        plan: as its file has it; None where there is none yet, or where it cannot be read.
        problem: why it cannot be read; "" where it can.
        begun: whether something was computed with it.
        under_way: the round that a method has begun and not finished; None where there is none.
    """

    plan: Plan | None = None
    problem: str = ""
    begun: bool = False
    under_way: int | None = None

    @classmethod
    def of(cls, project: Project | None) -> PlannedChoices:
        """Read the plan of a project, if it has one."""
        if project is None or not project.plan_path.is_file():
            return cls()
        begun, found = bool(project.journal.units()), method_under_way(project)
        under_way = found[0] if found is not None else None
        try:
            return cls(read_plan(project.plan_path), begun=begun, under_way=under_way)
        except SettingsError as error:
            return cls(problem=error.sentence, begun=begun, under_way=under_way)

    def value(self, setting: str) -> Any:
        """What the plan says of a setting; None where it says nothing."""
        known = {NETWORK: "network", FIRST_STEPS: "first_steps", ROUND_STEPS: "round_steps"}
        return getattr(self.plan, known[setting]) if self.plan is not None and setting in known else None

    def why_fixed(self, setting: str) -> str:
        """Why a setting cannot be changed any more, and what can be done; "" where it can."""
        if setting == METHOD and self.under_way is not None:
            return _("Round {round} is not finished: go on with it first, then choose another method.").format(round=self.under_way)
        if setting not in (NETWORK, FIRST_STEPS, ROUND_STEPS):
            return ""
        if self.problem:
            return self.problem
        if self.plan is None or setting == ROUND_STEPS:
            return ""
        if setting == FIRST_STEPS:
            return _("Round 0 has begun, and this counts for it alone.") if self.begun else ""
        if self.begun:
            return _("The rounds have begun with the network of plan.toml: another one needs a new project.")
        return _("plan.toml in the project's folder was made for this network: remove that file, and a new plan is made before round 0.")


def change_steps(project: Project, setting: str, value: int) -> None:
    """Write the steps into ``plan.toml``, which counts, and into the project's settings, so that the two agree.

    Args:
        project: it has a plan.
        setting: ``FIRST_STEPS`` or ``ROUND_STEPS``.
        value: 1 at least: what is automatic was decided when the plan was made.

    Raises:
        ProjectError: it is open for reading only.
        SettingsError: one of the files cannot be read, or the number is out of range.
    """
    project.require_writable()
    change_plan(project.plan_path, **{setting.rpartition(".")[2]: value})
    project.change_settings(replaced(project.settings, setting, value))
