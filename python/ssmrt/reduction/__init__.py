"""Model order reduction: fewer states for what a model is to hear."""

from .reduction import Method as Method
from .reduction import Reducer as Reducer
from .reduction import reduce as reduce
from .report import Layer as Layer
from .report import Report as Report
from .report import Try as Try
