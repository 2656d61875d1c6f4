"""Stand-ins for the widgets of CTK that .ui files use: same names, properties and signals, plain looks.

Checked against CTK's headers (Libs/Widgets). What is only remembered and not drawn says so through ``stored``.
"""
# ruff: noqa: N801  the names are CTK's

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

from PySide6 import QtCore

from .qt_module import qt
from .stand_in import stand_in, stored

_HEADER = 24
"""Pixels of a collapsible button's title row."""


@stand_in
class ctkCollapsibleButton(qt.QAbstractButton):
    """A title row that folds away what lies below it."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, text: str | Any = None, parent: Any = None) -> None:
        if text is not None and not isinstance(text, str):
            text, parent = None, text
        super().__init__(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self.setText(text or "")
        self.setContentsMargins(0, _HEADER, 0, 0)
        self.setMinimumHeight(_HEADER)
        self.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Preferred)
        self.toggled.connect(self._fold)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))
    collapsedHeight = stored("collapsedHeight", int, 10)
    flat = stored("flat", bool, False)
    contentsFrameShape = stored("contentsFrameShape", int, 0)
    contentsLineWidth = stored("contentsLineWidth", int, 1)

    def _fold(self, opened: bool) -> None:
        for child in self.children():
            if isinstance(child, qt.QWidget):
                child.setVisible(opened)
        self.setMaximumHeight(16777215 if opened else _HEADER)
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)

    def childEvent(self, event: Any) -> None:
        """Widgets that come in while it is folded stay hidden."""
        super().childEvent(event)
        child = event.child()
        if event.added() and not self.isChecked() and isinstance(child, qt.QWidget):
            child.setVisible(False)

    def hitButton(self, position: Any) -> bool:
        """Only the title row takes clicks."""
        return bool(position.y() < _HEADER)

    def sizeHint(self) -> Any:
        """The contents' size below the title row."""
        inner = self.layout().sizeHint() if self.layout() and self.isChecked() else qt.QSize(100, 0)
        return qt.QSize(inner.width(), inner.height() + _HEADER)

    def paintEvent(self, _event: Any) -> None:
        """The title row with its arrow."""
        painter = qt.QPainter(self)
        option = qt.QStyleOptionButton()
        option.initFrom(self)
        option.rect = qt.QRect(0, 0, self.width, _HEADER)
        self.style().drawControl(qt.QStyle.CE_PushButtonBevel, option, painter, self)
        arrow = qt.QStyle.PE_IndicatorArrowDown if self.isChecked() else qt.QStyle.PE_IndicatorArrowRight
        option.rect = qt.QRect(6, 6, 12, 12)
        self.style().drawPrimitive(arrow, option, painter, self)
        painter.drawText(qt.QRect(24, 0, self.width - 24, _HEADER), qt.Qt.AlignVCenter, self.text)
        painter.end()


@stand_in
class ctkCollapsibleGroupBox(qt.QGroupBox):
    """A group box that folds away its contents."""

    def __init__(self, title: str | Any = None, parent: Any = None) -> None:
        if title is not None and not isinstance(title, str):
            title, parent = None, title
        super().__init__(parent)
        self.setTitle(title or "")
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._fold)

    collapsed = QtCore.Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))
    collapsedHeight = stored("collapsedHeight", int, 14)

    def _fold(self, opened: bool) -> None:
        for child in self.children():
            if isinstance(child, qt.QWidget):
                child.setVisible(opened)


def _of_box(name: str, kind: type) -> QtCore.Property:
    """A property of the spin box inside, shown as the widget's own."""

    def read(self: Any) -> Any:
        return getattr(self._box, name)

    def write(self: Any, value: Any) -> None:
        setattr(self._box, name, value)

    return QtCore.Property(kind, read, write)


@stand_in
class _Number(qt.QWidget):
    """What CTK's spin box and slider share: decimals, a range, and a value that is clipped to it."""

    valueChanged = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._box = qt.QDoubleSpinBox(self)
        self._box.setRange(0.0, 99.99)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self.valueChanged)

    def setRange(self, low: float, high: float) -> None:
        """Smallest and largest value."""
        self._box.setRange(low, high)

    value = _of_box("value", float)
    minimum = _of_box("minimum", float)
    maximum = _of_box("maximum", float)
    singleStep = _of_box("singleStep", float)
    decimals = _of_box("decimals", int)
    prefix = _of_box("prefix", str)
    suffix = _of_box("suffix", str)


@stand_in
class ctkDoubleSpinBox(_Number):
    """A spin box of fractional numbers."""

    editingFinished = QtCore.Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._box.editingFinished.connect(self.editingFinished)


@stand_in
class ctkSliderWidget(_Number):
    """A slider with a spin box."""

    valueIsChanging = QtCore.Signal(float)
    valuesChanged = QtCore.Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider = qt.QSlider(qt.Qt.Horizontal, self)
        self._slider.setRange(0, 1000)
        self.layout().insertWidget(0, self._slider)
        self._box.valueChanged.connect(self._move)
        self._slider.sliderMoved.connect(self._pull)

    tracking = stored("tracking", bool, True)
    pageStep = stored("pageStep", float, 10.0)
    tickInterval = stored("tickInterval", float, 0.0)
    spinBoxVisible = QtCore.Property(bool, lambda self: self._box.isVisibleTo(self), lambda self, shown: self._box.setVisible(shown))

    def _move(self, value: float) -> None:
        width = self.maximum - self.minimum
        self._slider.setValue(round(1000 * (value - self.minimum) / width) if width else 0)

    def _pull(self, position: int) -> None:
        self.value = self.minimum + position / 1000 * (self.maximum - self.minimum)


@stand_in
class ctkDoubleSlider(_Number):
    """A slider of fractional numbers, here with the numbers shown."""


@stand_in
class ctkRangeWidget(qt.QWidget):
    """Two values with a range around them."""

    valuesChanged = QtCore.Signal(float, float)
    minimumValueChanged = QtCore.Signal(float)
    maximumValueChanged = QtCore.Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._low, self._high = ctkDoubleSpinBox(self), ctkDoubleSpinBox(self)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for box in (self._low, self._high):
            row.addWidget(box)
            box.valueChanged.connect(self._changed)

    def _changed(self, _value: float) -> None:
        self.minimumValueChanged.emit(self._low.value)
        self.maximumValueChanged.emit(self._high.value)
        self.valuesChanged.emit(self._low.value, self._high.value)

    def setRange(self, low: float, high: float) -> None:
        """Smallest and largest value that either may take."""
        self._low.setRange(low, high)
        self._high.setRange(low, high)

    def setValues(self, low: float, high: float) -> None:
        """Both values."""
        self._low.value, self._high.value = low, high

    def _set_decimals(self, count: int) -> None:
        self._low.decimals = self._high.decimals = count

    def _set_step(self, step: float) -> None:
        self._low.singleStep = self._high.singleStep = step

    minimumValue = QtCore.Property(float, lambda self: self._low.value, lambda self, value: self._low.setValue(value))
    maximumValue = QtCore.Property(float, lambda self: self._high.value, lambda self, value: self._high.setValue(value))
    minimum = QtCore.Property(float, lambda self: self._low.minimum, lambda self, value: self.setRange(value, self.maximum))
    maximum = QtCore.Property(float, lambda self: self._low.maximum, lambda self, value: self.setRange(self.minimum, value))
    decimals = QtCore.Property(int, lambda self: self._low.decimals, _set_decimals)
    singleStep = QtCore.Property(float, lambda self: self._low.singleStep, _set_step)


class ctkDoubleRangeSlider(ctkRangeWidget):
    """Two values on one slider."""


@stand_in
class ctkPathLineEdit(qt.QWidget):
    """A line for a file's or folder's path, with a button that browses."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    Dirs, Drives, Files = 0x001, 0x004, 0x002
    Readable, Writable, Executable, Hidden = 0x010, 0x020, 0x040, 0x100

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._line = qt.QLineEdit(self)
        self._browse = qt.QPushButton("…", self)
        self._browse.setMaximumWidth(28)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line)
        row.addWidget(self._browse)
        self._valid = False
        self._line.textChanged.connect(self._path_changed)
        self._browse.clicked.connect(lambda _checked: self.browse())

    def _path_changed(self, path: str) -> None:
        """As in CTK, an empty line is no acceptable input, and only ``validInputChanged`` tells of it."""
        if self._valid != bool(path):
            self._valid = bool(path)
            self.validInputChanged.emit(self._valid)
        if path:
            self.currentPathChanged.emit(path)

    currentPath = QtCore.Property(str, lambda self: self._line.text, lambda self, path: self._line.setText(path))
    label = stored("label", str, "")
    filters = stored("filters", int, Files | Readable)
    options = stored("options", int, 0)
    settingKey = stored("settingKey", str, "")
    nameFilters = stored("nameFilters", "QStringList", [])
    showHistoryButton = stored("showHistoryButton", bool, True)
    showBrowseButton = QtCore.Property(
        bool, lambda self: self._browse.isVisibleTo(self), lambda self, shown: self._browse.setVisible(shown)
    )
    sizeAdjustPolicy = stored("sizeAdjustPolicy", int, 0)
    minimumContentsLength = stored("minimumContentsLength", int, 0)

    def browse(self) -> None:
        """Ask for a file, or a folder where only folders are allowed."""
        if self.filters & self.Files:
            path = qt.QFileDialog.getOpenFileName(self, self.label, self.currentPath)
        else:
            path = qt.QFileDialog.getExistingDirectory(self, self.label, self.currentPath)
        if path:
            self.currentPath = path

    def addCurrentPathToHistory(self) -> None:
        """The history is not kept."""


@stand_in
class ctkDirectoryButton(qt.QWidget):
    """A button that names a folder and asks for another."""

    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._directory = str(Path.cwd())
        self._button = qt.QPushButton(self._directory, self)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._button)
        self._button.clicked.connect(lambda _checked: self.browse())

    def _set_directory(self, path: str) -> None:
        if path != self._directory:
            self._directory = path
            self._button.text = path
            self.directoryChanged.emit(path)

    directory = QtCore.Property(str, lambda self: self._directory, _set_directory)
    caption = stored("caption", str, "")
    text = stored("text", str, "")

    def browse(self) -> None:
        """Ask for a folder."""
        path = qt.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if path:
            self.directory = path
            self.directorySelected.emit(path)


@stand_in
class ctkComboBox(qt.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    defaultText = stored("defaultText", str, "")
    scrollWheelEffect = stored("scrollWheelEffect", int, 1)
    currentUserDataAsString = QtCore.Property(
        str,
        lambda self: str(self.currentData or ""),
        lambda self, data: self.setCurrentIndex(self.findData(data)),
    )


@stand_in
class ctkCheckableComboBox(qt.QComboBox):
    """A combo box whose entries have check marks."""

    checkedIndexesChanged = QtCore.Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.model().itemChanged.connect(lambda _item: self.checkedIndexesChanged.emit())
        self.model().rowsInserted.connect(self._make_checkable)

    def _make_checkable(self, _parent: Any, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(qt.Qt.Unchecked)

    def checkableModel(self) -> Any:
        """The model that holds the check marks."""
        return self.model()

    def checkState(self, index: Any) -> Any:
        """Of one entry."""
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: Any, state: Any) -> None:
        """Of one entry."""
        self.model().itemFromIndex(index).setCheckState(state)

    def checkedIndexes(self) -> list[Any]:
        """The checked entries."""
        indexes = [self.model().index(row, 0) for row in range(self.count)]
        return [index for index in indexes if self.checkState(index) == qt.Qt.Checked]

    def allChecked(self) -> bool:
        """Whether every entry is checked."""
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        """Whether no entry is checked."""
        return not self.checkedIndexes()


@stand_in
class ctkColorPickerButton(qt.QPushButton):
    """A button that shows a colour and asks for another."""

    colorChanged = QtCore.Signal(qt.QColor)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._color = qt.QColor("black")
        self.clicked.connect(lambda _checked: self.changeColor())

    def _set_color(self, color: Any) -> None:
        if color != self._color:
            self._color = qt.QColor(color)
            picture = qt.QPixmap(14, 14)
            picture.fill(self._color)
            self.setIcon(qt.QIcon(picture))
            self.setText(self._color.name() if self.displayColorName else "")
            self.colorChanged.emit(self._color)

    color = QtCore.Property(qt.QColor, lambda self: self._color, _set_color)
    displayColorName = stored("displayColorName", bool, True)

    def changeColor(self) -> None:
        """Ask for a colour."""
        color = qt.QColorDialog.getColor(self._color, self)
        if color.isValid():
            self.color = color


@stand_in
class ctkCheckBox(qt.QCheckBox):
    """A check box that may have an icon."""


@stand_in
class ctkPushButton(qt.QPushButton):
    """A push button whose text may be aligned."""

    buttonTextAlignment = stored("buttonTextAlignment", int, 0)
    elideMode = stored("elideMode", int, 0)


@stand_in
class ctkCheckablePushButton(ctkPushButton):
    """A push button with a check box in it, here only checkable itself."""

    checkBoxToggled = QtCore.Signal(bool)
    checkBoxControlsButton = stored("checkBoxControlsButton", bool, True)
    checkBoxControlsButtonToggleState = stored("checkBoxControlsButtonToggleState", bool, True)


@stand_in
class ctkMenuButton(qt.QPushButton):
    """A push button with a menu at its side."""


@stand_in
class ctkSearchBox(qt.QLineEdit):
    """A line to search with."""

    showSearchIcon = stored("showSearchIcon", bool, False)


@stand_in
class ctkFittedTextBrowser(qt.QTextBrowser):
    """A text that is as high as it is long."""

    collapsed = stored("collapsed", bool, False)
    disableMouseScroll = stored("disableMouseScroll", bool, False)

    def setCollapsibleText(self, text: str) -> None:
        """The text; folding is not imitated."""
        self.setText(text)


@stand_in
class ctkExpandableWidget(qt.QFrame):
    """A frame that a person may pull larger."""

    orientations = stored("orientations", int, 0)


def module() -> types.ModuleType:
    """The stand-ins as they go into ``sys.modules["ctk"]``."""
    made = types.ModuleType("ctk", __doc__)
    for name, kind in globals().items():
        if name.startswith("ctk"):
            setattr(made, name, kind)
    return made
