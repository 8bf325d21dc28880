"""Vietnamese cosmetics recommender: data, models, deployment and what watches over them."""

__version__ = "0.1.0"
