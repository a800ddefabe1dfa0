"""What is trained? Networks as pure functions of one flat parameter vector, and their losses."""

from hfnb.models.mlp import Network, autoencoder, mlp

__all__ = ["Network", "autoencoder", "mlp"]
