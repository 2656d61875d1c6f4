"""The tab Setup: what is installed, how the rounds work, what a run needs. Everything has a default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.messages import EstimateNeeds, Message, Needs, Ready, Refused, RunFailed, WorkerEnded
from SAM2IterativeLib.settings import Settings, replaced
from SAM2IterativeLib.vocabulary import method_words

from . import installation
from .explaining import Explained, plain_table
from .guarding import guarded
from .method_choices import methods_on_disk
from .planned_choices import FIRST_STEPS, METHOD, NETWORK, ROUND_STEPS, PlannedChoices, change_steps
from .session import Session
from .weights_choice import WeightsChoice
from .wording import bytes_text, duration

_NETWORKS = ("auto", "unet2d", "unet3d", "unetplusplus")
_DEVICES = ("auto", "cpu", "cuda", "mps")
_MEMORY = ("G0", "G1", "G1+G2")


class SetupPanel:
    """Everything in the second tab.

    Args:
        widget: from SAM2IterativeSetup.ui.
        session: shared with the other tabs.
        runner: what really installs; Slicer's own by default.
    """

    def __init__(self, widget: Any, session: Session, runner: installation.Runner | None = None) -> None:
        self.widget, self.session, self.runner = widget, session, runner
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self.weights = WeightsChoice(ui, session)
        plain_table(ui.componentTable)
        self._estimating = False
        self._planned = PlannedChoices()
        self._automatic = ui.roundStepsBox.specialValueText
        self._methods = methods_on_disk()
        for name in self._methods:
            ui.methodCombo.addItem(name.upper() if len(name) <= 4 else name.replace("_", " "))
        self._combos: dict[Any, tuple[str, tuple[str, ...]]] = {
            ui.methodCombo: (METHOD, tuple(self._methods)),
            ui.networkCombo: (NETWORK, _NETWORKS),
            ui.deviceCombo: ("device", _DEVICES),
            ui.memoryCombo: ("memory.mode", _MEMORY),
        }
        self._boxes: dict[Any, str] = {
            ui.firstStepsBox: FIRST_STEPS,
            ui.roundStepsBox: ROUND_STEPS,
            ui.adaptationBox: "foundation.adaptation_steps",
            ui.maximumBox: "rounds.maximum",
            ui.keyFramesBox: "key_frames.count",
            ui.seedBox: "seed",
        }
        choices = (*self._combos, *self._boxes, ui.weightsCombo, ui.weightsFileButton, ui.defaultsButton)
        self._choices = choices
        self._explained = Explained(ui.choicesWhyLabel, *choices, ui.downloadButton, ui.removeWeightsButton)
        self._explained_install = Explained(ui.installWhyLabel, ui.installButton)
        self._explained_needs = Explained(ui.needsWhyLabel, ui.estimateButton)
        self._connect()
        session.observe(self.refresh)
        session.worker.observe(self._on_message)
        self.refresh()

    def _connect(self) -> None:
        ui = self.ui
        for combo, (setting, values) in self._combos.items():
            combo.connect("activated(int)", lambda number, setting=setting, values=values: self._change(setting, values[number]))
        for box, setting in self._boxes.items():
            box.setKeyboardTracking(False)
            box.connect("valueChanged(int)", lambda value, setting=setting: self._change(setting, int(value)))
        actions: dict[Any, Callable[[], object]] = {
            ui.installButton: self.install,
            ui.checkButton: self.refresh,
            ui.estimateButton: self.estimate,
            ui.defaultsButton: self.back_to_defaults,
        }
        for button, action in actions.items():
            button.connect("clicked(bool)", lambda _checked, action=action: action())

    # Life

    def enter(self) -> None:
        """The tab is opened."""
        self.refresh()

    def exit(self) -> None:
        """The tab is left."""

    def cleanup(self) -> None:
        """The module is closed."""
        self.weights.transfer.cancel()
        self.session.unobserve(self.refresh)
        self.session.worker.unobserve(self._on_message)

    # What is shown

    def refresh(self, topic: str = "") -> None:
        """Show what is; ``topic`` says what changed."""
        if topic in ("closing", "reviewer", "decisions", "cases"):
            return
        if topic == "project":
            self.ui.needsLabel.setText("")
        if topic in ("", "project"):
            self._show_components()
        self._planned = PlannedChoices.of(self.session.project)
        self._show_settings()
        self._explain()

    def _show_components(self) -> None:
        missing = installation.missing()
        needed = [c for c in missing if c.purpose == "rounds"]
        if needed:
            names = ", ".join(c.name for c in needed)
            text = _("<b>Missing or too old for the rounds:</b> {names}.<br/>Review and export of segmentations work without.")
            text = text.format(names=names)
        elif missing:
            text = _("<b>The rounds can run.</b> Missing or too old: {names}.").format(names=", ".join(c.name for c in missing))
        else:
            text = _("<b>Everything is installed.</b>")
        self.ui.installLabel.setText(text)
        self.ui.installSection.collapsed = not missing
        state = _("parts for the rounds are missing or too old") if needed else _("the rounds can run")
        self.ui.installSection.text = _("What is installed: {state}").format(state=state)
        table = self.ui.componentTable
        table.setRowCount(len(installation.COMPONENTS))
        for row, component in enumerate(installation.COMPONENTS):
            there = component not in missing
            cells = (component.name, installation.state_text(component), installation.purpose_text(component.purpose))
            for column, cell in enumerate(cells):
                item = qt.QTableWidgetItem(cell)
                if not there:
                    item.setForeground(qt.QBrush(qt.QColor("#c04020")))
                table.setItem(row, column, item)
        table.resizeColumnsToContents()

    def _show_settings(self) -> None:
        settings = self.session.project.settings if self.session.project else Settings()
        for combo, (setting, values) in self._combos.items():
            value = self._planned.value(setting) or _value(settings, setting)
            combo.setCurrentIndex(values.index(value) if value in values else -1)
        for box, setting in self._boxes.items():
            was, planned = box.blockSignals(True), self._planned.value(setting)
            if setting in (FIRST_STEPS, ROUND_STEPS):  # 0 means automatic until the plan has decided
                box.setMinimum(0 if planned is None else 1)
                box.setSpecialValueText(self._automatic if planned is None else "")
            box.setValue(_value(settings, setting) if planned is None else planned)
            box.blockSignals(was)
        self.ui.methodLabel.setText(self._methods.get(settings.method, ""))
        self.weights.refresh()
        self._show_device()

    def _show_device(self) -> None:
        ready = self.session.worker.ready
        if ready is None:
            text = _("'Estimate' below shows which one that is on this computer, and its memory.")
        else:
            text = f"{ready.device}. {ready.reason}" if ready.device else ready.reason
        self.ui.deviceLabel.setText(text)

    def _explain(self) -> None:
        ui, session = self.ui, self.session
        closed = "" if session.project else _("Open a project first: these choices belong to it.")
        locked = closed or (_("This project is open for reading only.") if session.read_only else "")
        locked = locked or session.why_fixed
        missing = _("Install what is missing first.") if installation.missing("rounds") else ""
        everything = "" if installation.installable() else _("Everything is installed that this Slicer can have.")
        everything = _("An installation is under way.") if installation.under_way() else everything
        method = session.project.settings.method if session.project else ""
        ignored = dict.fromkeys(method_words(method).ignored, _("The chosen method does without this."))
        reasons = dict.fromkeys(self._choices, locked)
        for choice, setting in {**{combo: setting for combo, (setting, _values) in self._combos.items()}, **self._boxes}.items():
            reasons[choice] = locked or self._planned.why_fixed(setting) or ignored.get(setting, "")
        reasons |= {
            ui.downloadButton: locked or self.weights.why_not_download(),
            ui.removeWeightsButton: locked or self.weights.why_not_remove(),
        }
        self._explained.set(reasons)
        self._explained_install.set({ui.installButton: _("The rounds are going on.") if session.worker.busy else everything})
        self._explained_needs.set({ui.estimateButton: locked or missing})
        said = locked or self._planned.problem
        ui.choicesWhyLabel.setText(said)
        ui.choicesWhyLabel.setVisible(bool(said))

    # Installing

    def install(self) -> None:
        """Install what is missing, if the person agrees; meanwhile this tab takes no clicks, since Slicer handles them while pip prints."""
        self.widget.setEnabled(False)
        try:
            ask_and_install(self.runner)
        finally:
            self.widget.setEnabled(True)
        self.session.worker.end()  # it looked for packages when it started
        self.session.notify("settings")
        self.refresh()

    # Settings

    def back_to_defaults(self) -> None:
        """Set everything back, but for labels and name."""
        project = self.session.require_project()
        kept = replace(Settings(), labels=project.settings.labels, name=project.settings.name)
        guarded(lambda: project.change_settings(kept))
        self.session.notify("settings")

    def _change(self, setting: str, value: Any) -> None:
        project, planned = self.session.project, self._planned.value(setting)
        if project is None or value == (_value(project.settings, setting) if planned is None else planned):
            return
        if planned is None:
            guarded(lambda: project.change_settings(replaced(project.settings, setting, value)))
        else:
            guarded(lambda: change_steps(project, setting, value))
        self.session.notify("settings")

    # The estimate

    def estimate(self) -> None:
        """Ask the worker what a run would take."""
        project = self.session.require_project()
        request = EstimateNeeds(str(project.folder), self.session.rounds)
        if guarded(lambda: self.session.worker.request(request), _("The estimate could not begin.")):
            self._estimating = True
            self.ui.needsLabel.setText(_("Trying it out … half a minute."))
            self.session.notify("run")

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Ready):
            self._show_device()
        if not self._estimating:
            return
        ended = isinstance(message, WorkerEnded) or getattr(message, "request", "") == "EstimateNeeds"
        if isinstance(message, Needs):
            self.ui.needsLabel.setText(needs_text(message, self.session.rounds))
        elif isinstance(message, (RunFailed, Refused, WorkerEnded)) and ended:
            self.ui.needsLabel.setText(escape(message.sentence))
        if isinstance(message, Needs) or ended:
            self._estimating = False
            self.session.notify("run")


def ask_and_install(runner: installation.Runner | None = None) -> bool:
    """Ask, then install what is missing; whether everything for the rounds is there now."""
    missing = installation.installable()
    if installation.under_way():
        slicer.util.errorDisplay(_("An installation is under way: wait until it is done."))
        return False
    if missing and slicer.util.confirmOkCancelDisplay(installation.question(missing)):

        def tell(text: str) -> None:
            slicer.util.showStatusMessage(text)
            slicer.app.processEvents()

        guarded(lambda: installation.install(missing, runner, tell), _("Not everything could be installed."))
    return not installation.missing("rounds")


def needs_text(needs: Needs, rounds: int) -> str:
    """An estimate as a small table."""
    rows = [(_("Computes on"), escape(needs.device))]
    if needs.seconds is not None:
        rows.append((_("{rounds} rounds take about").format(rounds=rounds), duration(needs.seconds)))
    if needs.memory is not None:
        free = _(" of {free} free").format(free=bytes_text(needs.device_memory_free)) if needs.device_memory_free is not None else ""
        rows.append((_("Memory"), bytes_text(needs.memory) + free))
    rows.append((_("Disk"), _("up to {disk} of {free} free").format(disk=bytes_text(needs.disk), free=bytes_text(needs.disk_free))))
    lines = "".join(f"<tr><td>{name}:&nbsp;&nbsp;</td><td><b>{value}</b></td></tr>" for name, value in rows)
    remarks = "".join(f"<p>⚠ {escape(remark)}</p>" for remark in needs.remarks)
    return f"<table>{lines}</table>{remarks}"


def _value(settings: Settings, dotted: str) -> Any:
    value: Any = settings
    for name in dotted.split("."):
        value = getattr(value, name)
    return value
