"""Puts everything in its place: ``qt``, ``ctk``, and what ``slicer`` lacks without the application."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

_application: Any = None
_SLICER_PYTHON = "SAM2_ITERATIVE_SLICER_PYTHON"


def start() -> Any:
    """Start the harness once for this process, and return ``slicer.app``.

    Afterwards ``import slicer, qt, ctk`` and ``slicer.ScriptedLoadableModule``, ``slicer.i18n`` and
    ``slicer.parameterNodeWrapper`` work as in Slicer. Where the environment variable SAM2_ITERATIVE_SLICER_PYTHON names the
    folder Base/Python/slicer of Slicer's source code, these three are Slicer's own files instead of the stand-ins.

    Raises:
        RuntimeError: a part is not installed; the text names it and the cure.
    """
    global _application
    if _application is not None:
        return _application
    from .availability import missing

    sentence = missing()
    if sentence:
        raise RuntimeError(sentence)
    _application = _start()
    return _application


def _start() -> Any:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")
    from . import application, ctk_widgets
    from .qt_module import qt
    from .ui_loader import QUiLoader

    sys.modules["qt"] = qt
    qt.QUiLoader = QUiLoader
    sys.modules["ctk"] = ctk_widgets.module()
    qt_application = qt.QApplication.instance() or qt.QApplication(["Slicer"])
    qt_application.setApplicationName("Slicer")
    qt_application.setOrganizationName("slicer.org")
    import slicer

    _export_widgets(QUiLoader)
    slicer.app = app = application.Application(qt_application)
    application.isolated_settings(Path(app.temporaryPath) / "settings")
    slicer.mrmlScene = app.mrmlScene()
    slicer.modules = application.slicer_modules(app)
    slicer.qSlicerScriptedLoadableModuleWidget = application.ScriptedModuleWidget
    app.finish()
    app.main_window = application.MainWindow()
    _install_python_parts()
    return app


def _export_widgets(loader: Any) -> None:
    from . import ctk_widgets, mrml_widgets, segment_widgets

    loader.stand_ins.update({name: kind for name, kind in vars(ctk_widgets).items() if name.startswith("ctk")})
    loader.stand_ins.update(mrml_widgets.export())
    loader.stand_ins.update(segment_widgets.export())


def _install_python_parts() -> None:
    import slicer
    import slicer.util

    from . import answering, faults

    own = os.environ.get(_SLICER_PYTHON)
    if own:
        slicer.__path__.append(own)
        import slicer.i18n
        import slicer.parameterNodeWrapper
        import slicer.ScriptedLoadableModule
    else:
        from . import parameter_node, scripted_module, translation

        for name, module in (
            ("i18n", translation),
            ("parameterNodeWrapper", parameter_node),
            ("ScriptedLoadableModule", scripted_module),
        ):
            sys.modules[f"slicer.{name}"] = module
            setattr(slicer, name, module)
    answering.install()
    faults.install()


def reset() -> None:
    """An empty scene, no settings, no recorded messages: what the next test needs."""
    import slicer
    import slicer.util

    from .answering import dialogs
    from .faults import forget
    from .qt_module import qt

    slicer.mrmlScene.Clear(0)
    for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode"):
        slicer.mrmlScene.RemoveNode(node)  # singletons, which outlive Clear
    qt.QSettings().clear()
    dialogs.forget()
    forget()
