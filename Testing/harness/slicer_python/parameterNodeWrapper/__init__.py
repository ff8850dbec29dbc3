"""Stand-in for slicer.parameterNodeWrapper: typed access to a vtkMRMLScriptedModuleNode, and its binding to widgets.

Made: str, int, float, bool, pathlib.Path, enumerations, node classes, `X | None`, Annotated with Default and the validators below,
connectGui, connectParametersToGui, disconnectGui. Other types (lists, parameter packs, ...) raise NotImplementedError.
"""

from .connectors import Decimals, GuiConnector, SingleStep, createGuiConnector
from .storage import Choice, Default, Exclude, IsInstance, Maximum, Minimum, NotNone, Validator, WithinRange
from .wrapper import SlicerParameterNamePropertyName, findChildWidgetForParameter, isParameterNodeWrapper, parameterNodeWrapper

__all__ = [
    "Choice", "Decimals", "Default", "Exclude", "GuiConnector", "IsInstance", "Maximum", "Minimum", "NotNone", "SingleStep",
    "SlicerParameterNamePropertyName", "Validator", "WithinRange", "createGuiConnector", "findChildWidgetForParameter",
    "isParameterNodeWrapper", "parameterNodeWrapper",
]
