"""A form made from settings: each `Option` becomes a field of its kind, with its words, unit and limits."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QLabel,
    QLineEdit,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_slnpredict.encode.option import Option, options_of

from .widgets import Fold

#: Largest whole number a spin box takes.
_MOST = 2**31 - 1
_WRONG = "border: 1px solid #c8641e;"


class NumberField(QLineEdit):
    """A number as people write it: 0.0003 or 3e-4; framed while it is none, or outside its limits."""

    def __init__(self, option: Option) -> None:
        super().__init__(f"{option.default:g}")
        self._option = option
        self._value = float(option.default)
        self.textChanged.connect(self._read)

    @property
    def value(self) -> float:
        """The last text that was a number within the limits."""
        return self._value

    def _read(self, text: str) -> None:
        try:
            number = float(text.replace(",", "."))
            problem = self._option.problem(number)
        except ValueError:
            number, problem = 0.0, "not a number"
        self.setStyleSheet(_WRONG if problem else "")
        self.setToolTip(problem or self._option.help)
        if not problem:
            self._value = number


class SettingsForm(QWidget):
    """The fields of one settings dataclass; what is not `main` is folded away.

    Parameters
    ----------
    kind : type
        A dataclass of `option` fields.
    without : tuple of str
        Fields that stand elsewhere.
    more : str
        Heading of the fold.
    """

    changed = Signal()

    def __init__(self, kind: type, *, without: tuple[str, ...] = (), more: str = "More settings") -> None:
        super().__init__()
        self._kind = kind
        self._calm = _CalmWheel(self)
        self.fields: dict[str, QWidget] = {}
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        options = [one for one in options_of(kind) if one.name not in without]
        main, rest = ([one for one in options if one.main is shown] for shown in (True, False))
        if main:
            layout.addLayout(self._grid(main))
        if rest:
            fold = Fold(more, opened=False)
            fold.column.addLayout(self._grid(rest))
            layout.addWidget(fold)

    def values(self) -> dict[str, Any]:
        """Return what the fields say, by name."""
        return {name: _value(field) for name, field in self.fields.items()}

    def set_value(self, name: str, value: Any) -> None:
        """Put a value into a field."""
        field = self.fields[name]
        if isinstance(field, QCheckBox):
            field.setChecked(value)
        elif isinstance(field, QSpinBox):
            field.setValue(value)
        elif isinstance(field, QComboBox):
            field.setCurrentText(value)
        elif isinstance(field, QLineEdit):
            field.setText(f"{value:g}" if isinstance(field, NumberField) else value)

    def _grid(self, options: list[Option]) -> QGridLayout:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(3)
        grid.setColumnStretch(0, 1)
        grid.setColumnStretch(1, 1)
        for row, one in enumerate(options):
            field = self._field(one)
            field.setToolTip(one.help)
            field.setAccessibleName(one.help)
            self.fields[one.name] = field
            label = QLabel(_spoken(one))
            label.setToolTip(one.help)
            label.setBuddy(field)
            grid.addWidget(label, row, 0)
            grid.addWidget(field, row, 1)
        return grid

    def _field(self, one: Option) -> QWidget:
        """Return a field for an option, at its default."""
        field: QWidget
        if one.kind is bool:
            field = QCheckBox()
            field.setChecked(one.default)
            field.toggled.connect(self.changed)
        elif one.choices:
            field = QComboBox()
            field.addItems(one.choices)
            field.setCurrentText(one.default)
            field.currentIndexChanged.connect(self.changed)
        elif one.kind is int:
            field = QSpinBox()
            field.setRange(int(one.low or 0), int(one.high if one.high is not None else _MOST))
            field.setValue(one.default)
            field.valueChanged.connect(self.changed)
        else:
            field = NumberField(one) if one.kind is float else QLineEdit(str(one.default))
            field.textChanged.connect(self.changed)
        field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        field.installEventFilter(self._calm)
        return field

    def settings(self, **more: Any) -> Any:
        """Return the dataclass that the fields describe."""
        return self._kind(**{**self.values(), **more})


class _CalmWheel(QObject):
    """A wheel that scrolls past a field must not change it."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Leave the wheel to the page."""
        if event.type() == QEvent.Type.Wheel and not isinstance(watched, QLineEdit):
            event.ignore()
            return True
        return False


def _spoken(one: Option) -> str:
    """Return an option's name as a label: ``Near, µm``."""
    name, unit = one.name.replace("_", " "), one.unit.replace("um", "µm")
    for ending in (" um", " px", " minutes"):
        name = name.removesuffix(ending)
    name = name[:1].upper() + name[1:]
    return f"{name}, {unit}" if unit else name


def _value(field: QWidget) -> Any:
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, QSpinBox):
        return field.value()
    if isinstance(field, QComboBox):
        return field.currentText()
    if isinstance(field, NumberField):
        return field.value
    assert isinstance(field, QLineEdit)
    return field.text().strip()
