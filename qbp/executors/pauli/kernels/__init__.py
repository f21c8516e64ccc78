"""The compiled kernels of the Pauli executor (`words`), and what their tables mean (`conventions`)."""
