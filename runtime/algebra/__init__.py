"""The linear algebra of minimisers: dense, in blocks and sparse; factorisations, spectra, steps of a model."""
