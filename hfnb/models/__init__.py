"""What is trained? Networks as pure functions of one flat parameter vector, and their losses."""

from hfnb.models._mlp import autoencoder, mlp
from hfnb.models.losses import cross_entropy, squared_error
from hfnb.models.network import Network

__all__ = ["Network", "autoencoder", "cross_entropy", "mlp", "squared_error"]
