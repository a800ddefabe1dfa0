"""What is trained? Networks as pure functions of one flat parameter vector, and their losses."""

from hfnb.models.input_derivatives import derivatives
from hfnb.models.losses import cross_entropy, squared_error
from hfnb.models.network import Network, autoencoder, mlp
from hfnb.models.recurrence import recurrent_states
from hfnb.models.row_jacobian import product

__all__ = [
    "Network",
    "autoencoder",
    "cross_entropy",
    "derivatives",
    "mlp",
    "product",
    "recurrent_states",
    "squared_error",
]
