"""Models of one's own: layers from plain arrays, put together by plain functions.

A layer is a node of the `Document`; a `Model` counts as a layer too. `model` makes a model of one:

    from ssmrt import nn

    block = nn.sequential([nn.layer_norm(scale, shift), nn.diagonal(A, B, C, D, dt), nn.activation("gelu")])
    model = nn.model(nn.sequential([nn.linear(W, b), nn.residual(block), nn.pool("mean"), nn.linear(V)]))

Arrays are whatever NumPy makes arrays of. Real weights are kept in float32 or float64 as they come, any other
dtype in float64; state-space parameters are held in float64 and discretised there. ``name`` is for tables, errors
and exported graphs. A wrong shape is a ValueError, an array of the wrong kind a TypeError.
"""

from .compose import Layer as Layer
from .compose import gate as gate
from .compose import model as model
from .compose import residual as residual
from .compose import sequential as sequential
from .plain import activation as activation
from .plain import batch_norm as batch_norm
from .plain import conv1d as conv1d
from .plain import embedding as embedding
from .plain import glu as glu
from .plain import layer_norm as layer_norm
from .plain import linear as linear
from .plain import pool as pool
from .plain import rms_norm as rms_norm
from .systems import dense as dense
from .systems import diagonal as diagonal
from .systems import dplr as dplr
from .systems import linoss as linoss
from .systems import selective as selective
from .systems import ssd as ssd
