"""The neural networks (torch): loading, the compact architecture, and weight transfer to it."""
