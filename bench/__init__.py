"""Measures what Morph itself costs, beside BuildStream where that is installed. See README.md."""
