"""The models: a source is a file with the type of its entries in config.yaml, which fills a model's folder."""
