"""Model order reduction: fewer states for what a model is to hear."""

from .reducer import METHODS as METHODS
from .reducer import Method as Method
from .reducer import Reducer as Reducer
from .reducer import reduce as reduce
from .report import Layer as Layer
from .report import Report as Report
from .report import Try as Try
